"""What changes data in the shop. Nothing here names a cache: that is the map's work, see `cache_rules.py`."""

from datetime import datetime
from decimal import Decimal
from random import gauss

from django.db import transaction
from django.utils import timezone

from .models import GoldRate, InventoryItem, LoyaltyAccount, Sale, SaleLine
from .rates import GOLD_KARATS
from .seed import tier_of

RESTOCK = 12
MARKET_STEP = 0.008
"""Usual step of the gold rate, as a share of it."""


class SoldOut(Exception):
    """The item has no piece left."""


@transaction.atomic
def sell(item_pk, *, customer=None, quantity=1):
    """
    Sell pieces of one item: a sale, its line, the stock and the customer's points, in one transaction.

    Returns: the sale.
    Raises:  SoldOut; InventoryItem.DoesNotExist.
    """
    item = InventoryItem.objects.select_for_update().get(pk=item_pk)
    if item.quantity < quantity:
        raise SoldOut(f"{item} has {item.quantity} pieces left, {quantity} were asked for.")
    total = item.price * quantity
    sale = Sale.objects.create(
        tenant_id=item.tenant_id, branch_id=item.branch_id, customer=customer, number=new_number(), total=total
    )
    SaleLine.objects.create(sale=sale, item=item, quantity=quantity, price=item.price)
    item.quantity -= quantity
    if not item.quantity:
        item.status = InventoryItem.Status.SOLD_OUT
    item.save()
    account = LoyaltyAccount.objects.filter(customer=customer).first() if customer else None
    if account:
        account.points += int(total) // 10
        account.tier = tier_of(account.points)
        account.save()
    return sale


def new_number():
    """Return a sale's number made of the moment."""
    return f"S-{datetime.now(tz=timezone.get_current_timezone()):%Y%m%d-%H%M%S-%f}"


def change_price(item, price):
    """Give an item another price."""
    item.price = Decimal(price)
    item.save()


def restock(item):
    """Put pieces of an item back on the shelf."""
    item.quantity += RESTOCK
    item.status = InventoryItem.Status.IN_STOCK
    item.save()


@transaction.atomic
def move_market():
    """Add a rate of today for each karat, a small random step away from the last. Returns: the one of pure gold."""
    last = GoldRate.objects.filter(karat=24).order_by("-created_at").first()
    price = float(last.price_per_gram if last else 75) * gauss(1, MARKET_STEP)
    rates = [GoldRate(karat=karat, price_per_gram=Decimal(f"{price * karat / 24:.4f}")) for karat in GOLD_KARATS]
    for rate in rates:
        rate.save()
    return rates[0]
