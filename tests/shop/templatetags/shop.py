"""How the pages say what came from the cache, and how bars get their length without inline styles."""

from django import template
from django.conf import settings
from django.template.defaultfilters import floatformat

from shop.outcomes import costly

register = template.Library()

WORDS = {
    "hit": "from cache",
    "stale": "from cache, stale",
    "miss": "computed",
    "bypassed": "computed, cache not asked",
    "error": "computed, cache away",
}


@register.inclusion_tag("shop/_outcome.html", takes_context=True)
def outcome(context, group):
    """Say how the last read of `group` in this request ended; nothing if it was not read."""
    found = [outcome for outcome in getattr(context["request"], "outcomes", ()) if outcome.group == group]
    return {"outcome": found[-1], "words": WORDS.get(found[-1].result, found[-1].result)} if found else {}


@register.inclusion_tag("shop/_outcomes.html", takes_context=True)
def outcomes(context):
    """List every cached read of this request so far; stands at the foot of a page."""
    request = context["request"]
    found = list(getattr(request, "outcomes", ()))
    return {
        "outcomes": [(outcome, WORDS.get(outcome.result, outcome.result)) for outcome in found],
        "from_cache": sum(outcome.is_from_cache for outcome in found),
        "slow_ms": settings.SHOP_SLOW_MS,
    }


@register.simple_tag
def compute(name):
    """Say that the body of the fragment `name` is being rendered."""
    costly(name)
    return ""


@register.filter
def share(part, whole):
    """Return `part` as a share of `whole` in percent, for the length of an SVG bar."""
    return f"{100 * float(part or 0) / float(whole):.1f}" if whole else "0"


@register.filter
def rest_of(part, whole):
    """Return what `part` leaves of `whole`, for the top of an SVG bar."""
    return f"{float(whole) - float(part):.1f}"


@register.filter
def times(number, factor):
    """Return a product, for SVG coordinates."""
    return number * factor


@register.filter
def at(mapping, key):
    """Return the value at a key that is no name, such as one with a space."""
    return mapping.get(key)


@register.filter
def money(amount):
    """Return an amount with grouped thousands and no decimals."""
    return floatformat(amount or 0, "0g")
