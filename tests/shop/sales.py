"""Cached questions about a tenant's sales and customers, and the dashboard and report built from them."""

from datetime import datetime, time, timedelta

from django.db.models import Avg, Count, F, Q, Sum
from django.db.models.functions import TruncDay, TruncMonth
from django.utils import timezone

from cacheadmin import (
    cache_dashboard_data,
    cache_report_result,
    cache_tenant_query,
    get_cached_dashboard_data,
    get_cached_report_result,
    get_or_set_cache,
    get_tenant_cache_key,
)

from .models import Customer, LoyaltyAccount, RepairOrder, Sale, SaleLine
from .outcomes import costly, note, timed

REVENUE = Sum(F("price") * F("quantity"))


def day_range(start_date, end_date):
    """Return the aware moments between which the days from `start_date` to `end_date`, both included, lie."""
    zone = timezone.get_current_timezone()
    return datetime.combine(start_date, time.min, zone), datetime.combine(end_date + timedelta(days=1), time.min, zone)


def last_month(tenant_id):
    """Return the arguments with which `sales_summary` is warmed: the last 30 days."""
    today = timezone.localdate()
    return [(today - timedelta(days=29), today)]


@cache_tenant_query(timeout=900, key_prefix="sales_summary", warm_with=last_month)
def sales_summary(tenant_id, start_date, end_date):
    """Return count, total, mean and number of buyers of the sales between two dates, both included."""
    costly("sales_summary")
    start, end = day_range(start_date, end_date)
    return Sale.objects.filter(tenant_id=tenant_id, created_at__gte=start, created_at__lt=end).aggregate(
        count=Count("pk"), buyers=Count("customer", distinct=True), mean=Avg("total"), total=Sum("total")
    )


@cache_tenant_query(timeout=900, key_prefix="sales_by_month", grace=300, warm_with=[()])
def sales_by_month(tenant_id, months=24):
    """Return count and total of each of the last months, oldest first."""
    costly("sales_by_month")
    since = timezone.now() - timedelta(days=30 * months)
    return list(
        Sale.objects.filter(tenant_id=tenant_id, created_at__gte=since)
        .annotate(month=TruncMonth("created_at"))
        .values("month")
        .annotate(count=Count("pk"), total=Sum("total"))
        .order_by("month")
    )


@cache_tenant_query(timeout=900, key_prefix="sales_best_sellers", version="by-revenue", warm_with=[()])
def best_sellers(tenant_id, limit=8):
    """Return the items that brought in most, over all sales."""
    costly("sales_best_sellers")
    return list(
        SaleLine.objects.filter(sale__tenant_id=tenant_id)
        .values("item_id", sku=F("item__sku"), name=F("item__name"))
        .annotate(pieces=Sum("quantity"), revenue=REVENUE)
        .order_by("-revenue", "sku")[:limit]
    )


@cache_tenant_query(timeout=60, key_prefix="sales_today")
async def sales_today(tenant_id):
    """Return count and total of the sales since midnight, for the async page."""
    costly("sales_today")
    start, end = day_range(timezone.localdate(), timezone.localdate())
    today = Sale.objects.filter(tenant_id=tenant_id, created_at__gte=start, created_at__lt=end)
    return await today.aaggregate(count=Count("pk"), total=Sum("total"))


def customer_tags(tenant_id, customer_id):
    """Return the tags of `customer_history`; the same could be said as `["customer:{customer_id}"]`."""
    return [f"customer:{customer_id}"]


@cache_tenant_query(timeout=900, key_prefix="customer_history", tags=customer_tags)
def customer_history(tenant_id, customer_id):
    """Return a customer with his points and last purchases; None, cached too, if the tenant has no such customer."""
    costly("customer_history")
    customer = Customer.objects.filter(tenant_id=tenant_id, pk=customer_id).values("id", "name", "joined").first()
    if customer is None:
        return None
    sales = Sale.objects.filter(tenant_id=tenant_id, customer_id=customer_id)
    points = LoyaltyAccount.objects.filter(customer_id=customer_id).values("points", "tier").first()
    spent = sales.aggregate(spent=Sum("total"), purchases=Count("pk"))
    return customer | spent | (points or {}) | {"last": list(sales.values("number", "total", "created_at")[:10])}


@cache_tenant_query(timeout=1800, key_prefix="loyalty_tiers", condition=lambda tiers: bool(tiers))
def loyalty_tiers(tenant_id):
    """Return members and points of each tier. A shop without members is asked again next time."""
    costly("loyalty_tiers")
    accounts = LoyaltyAccount.objects.filter(tenant_id=tenant_id)
    return list(accounts.values("tier").annotate(members=Count("pk"), points=Sum("points")).order_by("-points"))


def repair_board(tenant_id):
    """Return the number of repair orders by status, stored under a key that the shop makes itself."""

    def count_by_status():
        costly("repair_orders")
        orders = RepairOrder.objects.filter(tenant_id=tenant_id).order_by()
        return dict(orders.values_list("status").annotate(Count("pk")))

    key = get_tenant_cache_key(tenant_id, "repair_orders", board="status")
    return get_or_set_cache(key, count_by_status, timeout=600)


def dashboard_figures(tenant_id):
    """Return a tenant's headline figures, kept by the dashboard shortcuts."""
    if (data := get_cached_dashboard_data(tenant_id)) is not None:
        note("dashboard", "default", "hit")
        return data
    with timed("dashboard", "default"):
        costly("dashboard")
        since = timezone.now() - timedelta(days=7)
        week = Q(created_at__gte=since)
        data = Sale.objects.filter(tenant_id=tenant_id).aggregate(
            week_count=Count("pk", filter=week),
            week_total=Sum("total", filter=week),
            all_count=Count("pk"),
            all_total=Sum("total"),
        )
        data["customers"] = Customer.objects.filter(tenant_id=tenant_id).count()
    cache_dashboard_data(tenant_id, data, timeout=300)
    return data


def sales_report(tenant_id, start_date, end_date):
    """Return the sales report of a range of days, kept by the report shortcuts. The dearest page of the shop."""
    params = {"start_date": start_date.isoformat(), "end_date": end_date.isoformat()}
    if (report := get_cached_report_result(tenant_id, "sales_report", params)) is not None:
        note("report:sales_report", "query", "hit")
        return report
    with timed("report:sales_report", "query"):
        costly("report:sales_report")
        report = make_sales_report(tenant_id, start_date, end_date)
    cache_report_result(tenant_id, "sales_report", params, report, timeout=900)
    return report


def make_sales_report(tenant_id, start_date, end_date):
    """Compute the report: by day, by branch, by category."""
    start, end = day_range(start_date, end_date)
    sales = Sale.objects.filter(tenant_id=tenant_id, created_at__gte=start, created_at__lt=end).order_by()
    lines = SaleLine.objects.filter(sale__in=sales)
    by_day = sales.annotate(day=TruncDay("created_at")).values("day")
    return {
        "days": list(by_day.annotate(count=Count("pk"), total=Sum("total")).order_by("day")),
        "branches": list(
            sales.values(name=F("branch__city")).annotate(count=Count("pk"), total=Sum("total")).order_by("-total")
        ),
        "categories": list(
            lines.values(name=F("item__category__name"))
            .annotate(pieces=Sum("quantity"), revenue=REVENUE)
            .order_by("-revenue")
        ),
        "totals": sales.aggregate(count=Count("pk"), mean=Avg("total"), total=Sum("total")),
    }
