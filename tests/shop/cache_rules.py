"""
The shop's map: when one of these models changes, these caches go. The console lists it; a rule of the same name in the
database takes its place.
"""

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

rules = [
    Rule(
        "inventory",
        model="shop.InventoryItem",
        events=["create", "update", "delete", "m2m"],
        fields=SHOWN,
        targets=[
            "prefix:inventory",
            "group:category_counts",
            "group:dashboard",
            "tag:branch:{branch_id}",
            "fragment:product_list",
            RuleTarget("group", "product_list", alias="api"),
            RuleTarget("group", "stock_api", alias="api"),
        ],
        note="A visit writes view_count, which no page shows: it drops nothing.",
    ),
    Rule(
        "item names",
        model="shop.InventoryItem",
        events=["update"],
        fields=["name", "sku", "category"],
        targets=["group:sales_best_sellers", "prefix:report"],
    ),
    Rule("item tags", model="shop.Tag", targets=["prefix:inventory", "fragment:product_list"]),
    Rule(
        "categories",
        model="shop.Category",
        targets=["prefix:category", "prefix:inventory", "prefix:pricing", "prefix:report", "fragment:product_list"],
    ),
    Rule(
        "sales",
        model="shop.Sale",
        targets=[
            "prefix:sales",
            "group:dashboard",
            "prefix:report",
            "tag:branch:{branch_id}",
            "tag:customer:{customer_id}",
            RuleTarget("group", "stock_api", alias="api"),
        ],
    ),
    Rule(
        "sale lines",
        model="shop.SaleLine",
        tenant="sale__tenant_id",
        targets=["group:sales_best_sellers", "prefix:report"],
    ),
    Rule("customers", model="shop.Customer", targets=["prefix:customer", "group:dashboard", "tag:customer:{pk}"]),
    Rule("loyalty", model="shop.LoyaltyAccount", targets=["prefix:loyalty", "tag:customer:{customer_id}"]),
    Rule("repair orders", model="shop.RepairOrder", targets=["prefix:repair"]),
    Rule("purchase orders", model="shop.PurchaseOrder", targets=["prefix:purchase", "prefix:supplier"]),
    Rule("suppliers", model="shop.Supplier", targets=["prefix:supplier"]),
    Rule(
        "gold rate",
        model="shop.GoldRate",
        tenant="-",
        targets=[
            "prefix:gold_rate",
            RuleTarget("prefix", "pricing", tenant="all"),
            RuleTarget("prefix", "inventory", tenant="all"),
        ],
        note="The rate itself is shared; what it makes things cost is each tenant's own.",
    ),
    Rule("pricing rules", model="shop.PricingRule", targets=["prefix:pricing", "prefix:inventory"], warm=True),
    Rule(
        "branches",
        model="shop.Branch",
        targets=[
            "prefix:branch",
            "prefix:inventory",
            "prefix:report",
            "group:dashboard",
            "tag:branch:{pk}",
            "fragment:product_list",
            "fragment:sidebar",
        ],
    ),
    Rule("tenant settings", model="shop.TenantSetting", targets=["group:tenant_settings", "group:dashboard"]),
    Rule(
        "tenants", model="shop.Tenant", tenant="pk", targets=["tenant"], note="Its name and currency stand everywhere."
    ),
]
