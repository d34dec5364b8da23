"""
Fill the shop's tables with five believable tenants. Same seed and day, same rows.

`SHOPS` is the size of the demo; a scale below one makes the same shops smaller, for tests.
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from random import Random

from django.db import transaction
from django.utils import timezone

from .models import (
    Branch,
    Category,
    Customer,
    GoldRate,
    InventoryItem,
    LoyaltyAccount,
    PricingRule,
    PurchaseOrder,
    RepairOrder,
    Sale,
    SaleLine,
    Supplier,
    Tag,
    Tenant,
    TenantSetting,
)


@dataclass(frozen=True, slots=True)
class Shop:
    name: str
    slug: str
    currency: str
    cities: tuple[str, ...]
    items: int
    sales: int


SHOPS = (
    Shop("Ruby & Co", "ruby", "USD", ("Boston", "Chicago", "Denver", "Portland"), 1600, 6000),
    Shop("Gold & Sons", "gold", "USD", ("Austin", "Dallas", "Houston", "Miami", "Tampa"), 2400, 8000),
    Shop("Maison Opale", "opale", "EUR", ("Lyon", "Nantes", "Paris"), 1200, 4000),
    Shop("Karat House", "karat", "GBP", ("Bristol", "Leeds", "London"), 900, 3000),
    Shop("Lapis Lane", "lapis", "CHF", ("Basel", "Zürich"), 600, 2000),
)

CATEGORIES = {
    "Rings": "ring",
    "Necklaces": "necklace",
    "Earrings": "earrings",
    "Bracelets": "bracelet",
    "Brooches": "brooch",
    "Watches": "watch",
    "Chains": "chain",
    "Pendants": "pendant",
}
TAGS = ("bestseller", "bridal", "gift", "heritage", "new", "sale")
STONES = ("", "amethyst", "diamond", "emerald", "garnet", "lapis", "moonstone", "opal", "ruby", "sapphire", "topaz")
LINES = ("Aurora", "Celeste", "Dahlia", "Etoile", "Fiora", "Juno", "Lumen", "Marlow", "Nova", "Orion", "Vesper")
FIRST = ("Ada", "Bela", "Chloé", "Dev", "Elin", "Femi", "Grace", "Hana", "Ivo", "Jonas", "Kira", "Liam", "Mina", "Noor")
LAST = ("Abbott", "Bauer", "Costa", "Dubois", "Eriksen", "Fofana", "Garcia", "Hoshi", "Ito", "Jansen", "Khan", "Lopez")
REPAIRS = ("Resize a ring", "Replace a clasp", "Polish and clean", "Reset a stone", "Restring pearls", "New battery")
METAL_PRICE = {"platinum": Decimal(34), "silver": Decimal(1)}
DAYS = 730
BATCH = 2000


@dataclass(slots=True)
class Counts:
    tenants: int = 0
    items: int = 0
    sales: int = 0
    rates: int = 0


def money(amount):
    """Return an amount with two decimals."""
    return Decimal(amount).quantize(Decimal("0.01"))


@transaction.atomic
def seed(*, scale=1.0, random_seed=7):
    """
    Create the five shops and the gold rates in one transaction.

    Returns: `Counts`. Users are not made here, see the command `seed_shop`.
    """
    random, counts, now = Random(random_seed), Counts(), timezone.now()
    counts.rates, per_gram = seed_gold_rates(random, now, days=max(int(DAYS * scale), 7))
    for shop in SHOPS:
        tenant = Tenant.objects.create(name=shop.name, slug=shop.slug, currency=shop.currency)
        items = seed_stock(random, tenant, shop, per_gram, count=max(int(shop.items * scale), 12))
        customers = seed_customers(random, tenant, now, count=max(int(shop.sales * scale) // 8, 6))
        counts.sales += seed_sales(random, tenant, items, customers, now, count=max(int(shop.sales * scale), 20))
        seed_orders(random, tenant, customers, now, count=max(int(60 * scale), 4))
        counts.items += len(items)
        counts.tenants += 1
    return counts


def seed_gold_rates(random, now, *, days):
    """Walk the price of pure gold at random, one step a day. Returns: rows made, today's price per gram of gold."""
    price, rates = 74.0, []
    for age in range(days, -1, -1):
        price = max(price * random.gauss(1.0004, 0.007), 30)
        rates += [
            GoldRate(
                karat=karat,
                price_per_gram=Decimal(f"{price * karat / 24:.4f}"),
                created_at=now - timedelta(days=age),
            )
            for karat in (24, 22, 18, 14)
        ]
    GoldRate.objects.bulk_create(rates, batch_size=BATCH)
    return len(rates), Decimal(f"{price:.4f}")


def seed_stock(random, tenant, shop, per_gram, *, count):
    """Create a tenant's branches, categories, suppliers, tags, pricing rules, settings and items."""
    branches = Branch.objects.bulk_create(
        Branch(tenant=tenant, name=f"{shop.name} {city}", city=city) for city in shop.cities
    )
    categories = Category.objects.bulk_create(
        Category(tenant=tenant, name=name, slug=name.lower()) for name in CATEGORIES
    )
    suppliers = Supplier.objects.bulk_create(
        Supplier(tenant=tenant, name=f"{last} Atelier", email=f"{last.lower()}@example.com", country=country)
        for last, country in zip(random.sample(LAST, 5), ("CH", "IN", "IT", "TH", "TR"), strict=True)
    )
    tags = Tag.objects.bulk_create(Tag(tenant=tenant, name=name) for name in TAGS)
    PricingRule.objects.bulk_create(
        PricingRule(
            tenant=tenant,
            category=category,
            name=f"{category.name} markup",
            markup_percent=random.randint(15, 60),
            labour_per_gram=random.randint(4, 18),
        )
        for category in categories
    )
    TenantSetting.objects.bulk_create(
        TenantSetting(tenant=tenant, key=key, value=value)
        for key, value in (("theme", shop.slug), ("tax_percent", "7.7"), ("receipt_footer", f"Thank you, {shop.name}"))
    )
    items = [
        make_item(random, tenant, number, random.choice(branches), random.choice(categories), suppliers, per_gram)
        for number in range(1, count + 1)
    ]
    items = InventoryItem.objects.bulk_create(items, batch_size=BATCH)
    label = InventoryItem.tags.through
    label.objects.bulk_create(
        (
            label(inventoryitem_id=item.pk, tag_id=tag.pk)
            for item in items
            for tag in random.sample(tags, random.choice((0, 0, 1, 2)))
        ),
        batch_size=BATCH,
    )
    return items


def make_item(random, tenant, number, branch, category, suppliers, per_gram):
    """Return one unsaved item whose price follows from its metal, weight and stone."""
    metal = random.choice(InventoryItem.Metal.values)
    karat = random.choice((14, 18, 22)) if "gold" in metal else None
    stone = random.choice(STONES)
    weight = money(random.uniform(1.2, 38))
    gram = per_gram * karat / 24 if karat else METAL_PRICE[metal]
    price = weight * gram * Decimal("1.35") + (random.randint(80, 2400) if stone else 20)
    quantity = random.choice((0, 1, 1, 2, 3, 5, 8, 12))
    name = " ".join(filter(None, (random.choice(LINES), stone, CATEGORIES[category.name])))
    return InventoryItem(
        tenant=tenant,
        branch=branch,
        category=category,
        supplier=random.choice(suppliers),
        sku=f"{tenant.slug[:2].upper()}-{number:05d}",
        name=name,
        metal=metal,
        karat=karat,
        weight=weight,
        price=money(price),
        quantity=quantity,
        status=InventoryItem.Status.IN_STOCK if quantity else InventoryItem.Status.SOLD_OUT,
        view_count=random.randint(0, 900),
    )


def seed_customers(random, tenant, now, *, count):
    """Create a tenant's customers, each with a loyalty account."""
    customers = Customer.objects.bulk_create(
        (
            Customer(
                tenant=tenant,
                name=f"{random.choice(FIRST)} {random.choice(LAST)}",
                email=f"customer{number}@example.com",
                joined=(now - timedelta(days=random.randint(0, DAYS))).date(),
            )
            for number in range(count)
        ),
        batch_size=BATCH,
    )
    LoyaltyAccount.objects.bulk_create(
        (
            LoyaltyAccount(tenant=tenant, customer=customer, points=points, tier=tier_of(points))
            for customer in customers
            for points in (random.randint(0, 4000),)
        ),
        batch_size=BATCH,
    )
    return customers


def tier_of(points):
    """Return the loyalty tier that a number of points earns."""
    tier = LoyaltyAccount.Tier
    return tier.DIAMOND if points >= 3000 else tier.GOLD if points >= 1000 else tier.SILVER


def seed_sales(random, tenant, items, customers, now, *, count):
    """Create `count` sales of one to three lines, more of them lately than two years ago. Returns: how many."""
    sales, baskets = [], []
    for number in range(1, count + 1):
        basket = [(item, random.choice((1, 1, 1, 2))) for item in random.sample(items, random.randint(1, 3))]
        age = timedelta(days=DAYS * (random.random() ** 1.4), seconds=random.randint(0, 86400))
        sales.append(
            Sale(
                tenant=tenant,
                branch_id=basket[0][0].branch_id,
                customer=random.choice(customers) if random.random() < 0.7 else None,
                number=f"{tenant.slug[:2].upper()}S-{number:06d}",
                total=sum(item.price * quantity for item, quantity in basket),
                created_at=now - age,
            )
        )
        baskets.append(basket)
    sales = Sale.objects.bulk_create(sales, batch_size=BATCH)
    SaleLine.objects.bulk_create(
        (
            SaleLine(sale=sale, item=item, quantity=quantity, price=item.price)
            for sale, basket in zip(sales, baskets, strict=True)
            for item, quantity in basket
        ),
        batch_size=BATCH,
    )
    return len(sales)


def seed_orders(random, tenant, customers, now, *, count):
    """Create `count` repair orders and as many purchase orders."""
    branches, suppliers = list(Branch.objects.filter(tenant=tenant)), list(Supplier.objects.filter(tenant=tenant))
    RepairOrder.objects.bulk_create(
        RepairOrder(
            tenant=tenant,
            branch=random.choice(branches),
            customer=random.choice(customers),
            description=random.choice(REPAIRS),
            status=random.choice(RepairOrder.Status.values),
            estimate=random.randint(20, 400),
            created_at=now - timedelta(days=random.randint(0, 60)),
        )
        for _ in range(count)
    )
    PurchaseOrder.objects.bulk_create(
        PurchaseOrder(
            tenant=tenant,
            branch=random.choice(branches),
            supplier=random.choice(suppliers),
            status=random.choice(PurchaseOrder.Status.values),
            total=random.randint(500, 40_000),
            ordered_at=now - timedelta(days=random.randint(0, 90)),
        )
        for _ in range(count)
    )
