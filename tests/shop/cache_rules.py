"""
The shop's map: when one of these models changes, these caches go. The console lists it; a rule of the same name in the
database takes its place.
"""

from dataclasses import replace

from cacheadmin import Rule, RuleTarget

SHOWN = [
    "branch",
    "category",
    "supplier",
    "sku",
    "name",
    "metal",
    "karat",
    "weight",
    "price",
    "quantity",
    "status",
    "tags",
]
"""The fields of an item that a page shows: all but `view_count`, which each visit writes, and `updated`."""


def on(alias: str, *targets: str) -> list[RuleTarget]:
    """Targets in one alias: an invalidation is one round trip for each alias that its targets name."""
    return [replace(RuleTarget.parse(target), alias=alias) for target in targets]


DASHBOARD = on("default", "group:dashboard")
PRODUCT_LIST = on("template", "fragment:product_list")

rules = [
    Rule(
        "inventory",
        model="shop.InventoryItem",
        events=["create", "update", "delete", "m2m"],
        fields=SHOWN,
        targets=[
            *on("query", "prefix:inventory", "group:category_counts", "tag:branch:{branch_id}"),
            *DASHBOARD,
            *PRODUCT_LIST,
            *on("api", "group:product_list", "group:stock_api"),
        ],
        note="A visit writes view_count, which no page shows: it drops nothing.",
    ),
    Rule(
        "item names",
        model="shop.InventoryItem",
        events=["update"],
        fields=["name", "sku", "category"],
        targets=on("query", "group:sales_best_sellers", "prefix:report"),
    ),
    Rule("item tags", model="shop.Tag", targets=[*on("query", "prefix:inventory"), *PRODUCT_LIST]),
    Rule(
        "categories",
        model="shop.Category",
        targets=[*on("query", "prefix:category", "prefix:inventory", "prefix:pricing", "prefix:report"), *PRODUCT_LIST],
    ),
    Rule(
        "sales",
        model="shop.Sale",
        targets=[
            *on("query", "prefix:sales", "prefix:report", "tag:branch:{branch_id}", "tag:customer:{customer_id}"),
            *DASHBOARD,
            *on("api", "group:stock_api"),
        ],
    ),
    Rule(
        "sale lines",
        model="shop.SaleLine",
        tenant="sale__tenant_id",
        targets=on("query", "group:sales_best_sellers", "prefix:report"),
    ),
    Rule(
        "customers", model="shop.Customer", targets=[*on("query", "prefix:customer", "tag:customer:{pk}"), *DASHBOARD]
    ),
    Rule("loyalty", model="shop.LoyaltyAccount", targets=on("query", "prefix:loyalty", "tag:customer:{customer_id}")),
    Rule("repair orders", model="shop.RepairOrder", targets=["prefix:repair"]),
    Rule("purchase orders", model="shop.PurchaseOrder", targets=["prefix:purchase", "prefix:supplier"]),
    Rule("suppliers", model="shop.Supplier", targets=on("query", "prefix:supplier")),
    Rule(
        "gold rate",
        model="shop.GoldRate",
        tenant="-",
        targets=[
            "prefix:gold_rate",
            RuleTarget("prefix", "pricing", alias="query", tenant="all"),
            RuleTarget("prefix", "inventory", alias="query", tenant="all"),
        ],
        note="The rate itself is shared; what it makes things cost is each tenant's own.",
    ),
    Rule(
        "pricing rules", model="shop.PricingRule", targets=on("query", "prefix:pricing", "prefix:inventory"), warm=True
    ),
    Rule(
        "branches",
        model="shop.Branch",
        targets=[
            *on("query", "prefix:branch", "prefix:inventory", "prefix:report", "tag:branch:{pk}"),
            *DASHBOARD,
            *on("template", "fragment:product_list", "fragment:sidebar"),
        ],
    ),
    Rule("tenant settings", model="shop.TenantSetting", targets=[*on("default", "group:tenant_settings"), *DASHBOARD]),
    Rule(
        "tenants", model="shop.Tenant", tenant="pk", targets=["tenant"], note="Its name and currency stand everywhere."
    ),
]
