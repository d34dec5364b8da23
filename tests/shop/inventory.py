"""Cached questions about a tenant's stock. Each shows another option of the decorators."""

from django.core.paginator import Paginator
from django.db.models import Count, F, Max, Min, Q, Sum

from cacheadmin import cache_query_result, cache_tenant_query

from .models import Branch, Category, InventoryItem, PricingRule, PurchaseOrder, Supplier, TenantSetting
from .outcomes import costly
from .rates import latest_gold_rates

PAGE_SIZE = 24
STOCK_VALUE = Sum(F("price") * F("quantity"))


def branches_to_warm(tenant_id):
    """Return the arguments with which `branch_board` is warmed: one call a branch."""
    return [(pk,) for pk in Branch.objects.filter(tenant_id=tenant_id).values_list("pk", flat=True)]


@cache_tenant_query(timeout=900, key_prefix="inventory_list", tags=["branch:{branch_id}"], warm_with=[(), (None, None)])
def inventory_list(tenant_id, branch_id=None, category=None, search="", page=1):
    """Return one page of items as plain data, and what there is in all. `category` is a slug."""
    costly("inventory_list")
    items = InventoryItem.objects.filter(tenant_id=tenant_id)
    if branch_id is not None:
        items = items.filter(branch_id=branch_id)
    if category is not None:
        items = items.filter(category__slug=category)
    if search:
        items = items.filter(Q(name__icontains=search) | Q(sku__icontains=search) | Q(tags__name=search)).distinct()
    pages = Paginator(items.order_by("sku"), PAGE_SIZE)
    current = pages.get_page(page)
    columns = ("id", "sku", "name", "metal", "karat", "weight", "price", "quantity", "status")
    rows = current.object_list.values(*columns, category_name=F("category__name"), branch_name=F("branch__city"))
    return {
        "items": list(rows),
        "page": current.number,
        "pages": pages.num_pages,
        "count": pages.count,
        "value": items.aggregate(value=STOCK_VALUE)["value"] or 0,
    }


@cache_tenant_query(timeout=900, key_prefix="inventory_card", jitter=0.1, warm_with=[()])
def inventory_card(tenant_id):
    """Return what the front page says about a shop."""
    costly("inventory_card")
    return InventoryItem.objects.filter(tenant_id=tenant_id).aggregate(
        items=Count("pk"), pieces=Sum("quantity"), value=STOCK_VALUE, dearest=Max("price"), cheapest=Min("price")
    )


@cache_tenant_query(timeout=300, key_prefix="inventory_low_stock", warm_with=[()])
def low_stock(tenant_id, below=2, limit=8):
    """Return the items of which fewer than `below` pieces are left: a queryset, cached as a list."""
    costly("inventory_low_stock")
    few = InventoryItem.objects.filter(tenant_id=tenant_id, quantity__lt=below)
    return few.select_related("branch").order_by("quantity", "-price")[:limit]


@cache_tenant_query(timeout=1800, key_prefix="category_counts", warm_with=[()])
def category_counts(tenant_id):
    """Return each category with the number of its items and the value of its stock."""
    costly("category_counts")
    value = Sum(F("inventoryitem__price") * F("inventoryitem__quantity"))
    return list(
        Category.objects.filter(tenant_id=tenant_id)
        .annotate(items=Count("inventoryitem"), value=value)
        .values("name", "slug", "items", "value")
    )


@cache_tenant_query(timeout=900, key_prefix="branch_board", tags=["branch:{branch_id}"], warm_with=branches_to_warm)
def branch_board(tenant_id, branch_id):
    """Return a branch with its stock and its two years of sales; None if the tenant has no such branch."""
    costly("branch_board")
    branch = Branch.objects.filter(tenant_id=tenant_id, pk=branch_id).values("id", "name", "city").first()
    if branch is None:
        return None
    stock = InventoryItem.objects.filter(branch_id=branch_id).aggregate(items=Count("pk"), value=STOCK_VALUE)
    sales = Branch.objects.filter(pk=branch_id).aggregate(sales=Count("sale"), revenue=Sum("sale__total"))
    return branch | stock | sales


@cache_tenant_query(timeout=3600, key_prefix="branches", warm_with=[()])
def branches(tenant_id):
    """Return a tenant's branches as `{"id", "city"}`."""
    costly("branches")
    return list(Branch.objects.filter(tenant_id=tenant_id).values("id", "city"))


@cache_tenant_query(timeout=600, key_prefix="pricing_table")
def pricing_table(tenant_id):
    """Return what one gram costs by category and karat: the shared gold rates under the tenant's own rules."""
    costly("pricing_table")
    rates = latest_gold_rates()
    rules = PricingRule.objects.filter(tenant_id=tenant_id, is_active=True).select_related("category")
    return [
        {
            "category": rule.category.name if rule.category else "All",
            "per_gram": [
                round(rate["price_per_gram"] * (1 + rule.markup_percent / 100) + rule.labour_per_gram, 2)
                for rate in rates
            ],
        }
        for rule in rules
    ]


@cache_tenant_query(timeout=3600, key_prefix="supplier_list", single_flight=False)
def suppliers(tenant_id):
    """Return the suppliers with what was ordered from each and is on its way. Too cheap to make others wait for it."""
    costly("supplier_list")
    on_its_way = Q(purchaseorder__status=PurchaseOrder.Status.ORDERED)
    return list(
        Supplier.objects.filter(tenant_id=tenant_id)
        .annotate(orders=Count("purchaseorder", filter=on_its_way), due=Sum("purchaseorder__total", filter=on_its_way))
        .values("name", "country", "orders", "due")
    )


# The tenant is found by the argument's name here, since `cache_query_result` does not insist on one.
@cache_query_result(timeout=3600, key_prefix="tenant_settings", alias="default", max_value_bytes=64 * 1024)
def tenant_settings(tenant_id):
    """Return a tenant's settings as a dict."""
    costly("tenant_settings")
    return dict(TenantSetting.objects.filter(tenant_id=tenant_id).values_list("key", "value"))
