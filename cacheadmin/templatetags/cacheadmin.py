"""`{% load cacheadmin %}`: Django's `{% cache %}`, tied to the tenant and dropped by its fragment's name."""

from __future__ import annotations

from typing import Any

from django.core.cache import caches
from django.template import Context, Library, Node, NodeList, TemplateSyntaxError, VariableDoesNotExist
from django.template.base import FilterExpression, Parser, Token

from cacheadmin.exceptions import InvalidTenant
from cacheadmin.fragments import fragment_entry
from cacheadmin.functions import timeout_ms
from cacheadmin.keys import tenant_text
from cacheadmin.reading import Call, Options, Pace, get
from cacheadmin.store import store
from cacheadmin.tenancy import tenancy

register = Library()

_paces: dict[str, Pace] = {}


class CacheNode(Node):
    """One `{% cache %}` block."""

    def __init__(
        self,
        nodelist: NodeList,
        timeout: FilterExpression,
        name: str,
        vary_on: list[FilterExpression],
        options: dict[str, FilterExpression],
    ) -> None:
        self.nodelist = nodelist
        self.timeout = timeout
        self.name = name
        self.vary_on = vary_on
        self.options = options

    def render(self, context: Context) -> str:
        """Return the fragment, cached or rendered. Cost: a hit 1 round trip."""
        alias = self._alias(context)
        seconds = self._seconds(context)
        try:
            tenant = self._tenant(context)
        except InvalidTenant:
            return str(self.nodelist.render(context))  # nobody knows whose it is: not cached
        values = [str(value.resolve(context)) for value in self.vary_on]
        of_alias = store(alias)
        entry = fragment_entry(of_alias.place(tenant), self.name, values)
        call = Call(
            of_alias,
            entry,
            lambda: str(self.nodelist.render(context)),
            options=Options(timeout_ms=timeout_ms(alias, seconds)),
            pace=_paces.setdefault(self.name, Pace()),
            about=lambda: {"fn": f"fragment {self.name}", "args": ", ".join(values)},
            sender="fragment",
        )
        return str(get(call))

    def _alias(self, context: Context) -> str:
        if "using" not in self.options:
            return "template_fragments" if "template_fragments" in caches.settings else "default"
        alias = self.options["using"].resolve(context)
        if alias not in caches.settings:
            raise TemplateSyntaxError(f"Invalid cache name specified for cache tag: {alias!r}")
        return str(alias)

    def _seconds(self, context: Context) -> int | None:
        try:
            value = self.timeout.resolve(context)
        except VariableDoesNotExist as error:
            raise TemplateSyntaxError(f'"cache" tag got an unknown variable: {self.timeout.var!r}') from error
        if value is None:
            return None
        try:
            return int(value)
        except (ValueError, TypeError) as error:
            raise TemplateSyntaxError(f'"cache" tag got a non-integer timeout value: {value!r}') from error

    def _tenant(self, context: Context) -> str | None:
        """Return whose fragment it is: said in the tag, else active, else the request's. Raises: InvalidTenant."""
        site = tenancy()
        if "tenant" in self.options:
            return tenant_text(self.options["tenant"].resolve(context))
        if not site.has_tenants or ("shared" in self.options and self.options["shared"].resolve(context)):
            return None
        tenant = site.current()
        if tenant is None and "request" in context:
            tenant = site.from_request(context["request"])
        return tenant_text(tenant)


@register.tag("cache")
def do_cache(parser: Parser, token: Token) -> CacheNode:
    """
    Cache a part of a template.

        {% load cacheadmin %}
        {% cache [seconds] [fragment_name] [variables…] [tenant=…] [shared=True] [using="template"] %} … {% endcache %}

    It belongs to the tenant of `tenant=`, else to the active one, else to that of `request`; where no tenant can be
    told it is rendered each time, unless `shared=True` says that it is for everybody. The fragment's name is its group.
    """
    nodelist = parser.parse(("endcache",))
    parser.delete_first_token()
    tokens = token.split_contents()
    options: dict[str, Any] = {}
    while len(tokens) > 3 and (parts := tokens[-1].partition("="))[0] in ("using", "tenant", "shared") and parts[1]:
        options[parts[0]] = parser.compile_filter(parts[2])
        tokens.pop()
    if len(tokens) < 3:
        raise TemplateSyntaxError(f"'{tokens[0]}' tag requires at least 2 arguments.")
    return CacheNode(
        nodelist,
        parser.compile_filter(tokens[1]),
        tokens[2],
        [parser.compile_filter(part) for part in tokens[3:]],
        options,
    )
