"""Gold rates: data that all tenants share."""

from datetime import timedelta

from django.db.models import Avg, Max, Min
from django.db.models.functions import TruncWeek
from django.utils import timezone

from cacheadmin import (
    cache_gold_rate,
    cache_query_result,
    get_cache_key,
    get_cached_gold_rate,
    get_or_set_cache,
)

from .models import GoldRate
from .outcomes import costly, note, timed

GOLD_KARATS = (24, 22, 18, 14)


@cache_query_result(timeout=300, key_prefix="gold_rate_latest", shared=True, warm_with=[()])
def latest_gold_rates():
    """Return the latest rate of each karat as `{"karat", "price_per_gram", "created_at"}`, purest first."""
    costly("gold_rate_latest")
    rates = GoldRate.objects.order_by("-created_at").values("karat", "price_per_gram", "created_at")
    return [rate for karat in GOLD_KARATS if (rate := rates.filter(karat=karat).first())]


@cache_query_result(timeout=3600, key_prefix="gold_rate_history", shared=True, version=2, grace=600, warm_with=[()])
def gold_rate_history(karat=24, days=365):
    """Return the weekly lowest, mean and highest rate; for ten minutes after an hour the old figures will do."""
    costly("gold_rate_history")
    since = timezone.now() - timedelta(days=days)
    return list(
        GoldRate.objects.filter(karat=karat, created_at__gte=since)
        .annotate(week=TruncWeek("created_at"))
        .values("week")
        .annotate(low=Min("price_per_gram"), mean=Avg("price_per_gram"), high=Max("price_per_gram"))
        .order_by("week")
    )


def gold_range(days=30):
    """Return the lowest and highest rate of the last days, under a shared key that the shop makes itself."""

    def lowest_and_highest():
        costly("gold_rate_range")
        recent = GoldRate.objects.filter(karat=24, created_at__gte=timezone.now() - timedelta(days=days))
        return recent.aggregate(low=Min("price_per_gram"), high=Max("price_per_gram"))

    return get_or_set_cache(get_cache_key("gold_rate_range", days=days), lowest_and_highest, timeout=600)


def gold_ticker():
    """Return `{"price", "change"}` of pure gold per gram through the shortcuts, as a site writes it by hand."""
    if (ticker := get_cached_gold_rate()) is not None:
        note("gold_rate", "default", "hit")
        return ticker
    with timed("gold_rate", "default"):
        costly("gold_rate")
        latest = list(GoldRate.objects.filter(karat=24).values_list("price_per_gram", flat=True)[:2])
        ticker = {"price": latest[0] if latest else None, "change": latest[0] - latest[-1] if latest else None}
    cache_gold_rate(ticker, timeout=300)
    return ticker
