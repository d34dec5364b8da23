"""A great many rows in one transaction: what is noted of them collapses to scopes, and is delivered once."""

from __future__ import annotations

import random
import tracemalloc

from django.db import transaction
from django.db.models import F

from cacheadmin import cache_tenant_query, outbox
from cacheadmin.models import Intent
from faults import Asked, Outcome
from faults.models import Label

BATCH = 1_000
TENANTS = 5_000
LOOKED_AT = (0, 1, TENANTS - 1)
LOOK_EVERY = 20
"""Batches between two looks at the memory, which take longer than a batch."""
MOST_KIB = 1_024
"""What may be held for a transaction, of whatever size. 500 rows of each kind of change are known one by one."""
MOST_PAYLOAD = 100_000
OURS = tracemalloc.Filter(True, "*/cacheadmin/*")


@cache_tenant_query(timeout=600, key_prefix="labels")
def labels(tenant_id: int) -> int:
    return int(Label.objects.filter(tenant=tenant_id).count())


def held_kib() -> float:
    """Return how much of what our modules have allocated is held."""
    traces = tracemalloc.take_snapshot().filter_traces([OURS]).traces
    return sum(trace.size for trace in traces) / 1024


def write(number: int, chance: random.Random) -> None:
    """Create a batch of rows, and change what the last ones left."""
    made = Label.objects.bulk_create(
        [Label(tenant=(number * BATCH + at) % TENANTS) for at in range(BATCH)], batch_size=BATCH
    )
    one = made[chance.randrange(BATCH)]
    one.tenant = chance.randrange(TENANTS)
    one.save()
    Label.objects.filter(pk__in=[label.pk for label in made[:100]]).update(tenant=(F("tenant") + 1) % TENANTS)
    Label.objects.filter(pk__in=[label.pk for label in made[100:120]]).delete()


def bulk(asked: Asked) -> Outcome:
    """Write `count` rows in one transaction."""
    outcome, chance, delivered = Outcome(), random.Random(asked.seed), []
    outbox.on_delivered(lambda delivery, result: delivered.append(delivery))
    for tenant in LOOKED_AT:
        labels(tenant)
    Label.objects.create(tenant=0)  # whatever is read or compiled once is here before the count begins
    delivered.clear()
    known = Intent.objects.count()
    tracemalloc.start()
    before, most = held_kib(), 0.0
    with transaction.atomic():
        for number in range(asked.count // BATCH):
            write(number, chance)
            outcome.count("rows", BATCH)
            if number % LOOK_EVERY == LOOK_EVERY - 1:
                most = max(most, held_kib() - before)
                if most > MOST_KIB:
                    outcome.violate("unbounded", f"{most:,.0f} KiB are held after {(number + 1) * BATCH:,} rows")
                    if asked.stops_at_first:
                        break
    tracemalloc.stop()
    outcome.count("most_kib", most)
    # A COMMIT that takes half a second leaves its row to the relay too, which delivers all of it again.
    own = [delivery for delivery in delivered if delivery.source != "relay"]
    outcome.count("deliveries", len(own))
    outcome.count("repeated_by_the_relay", len(delivered) - len(own))
    outcome.count("intents", intents := Intent.objects.count() - known)
    if (len(own), intents) != (1, 1):
        outcome.violate("scattered", f"{len(own)} deliveries and {intents} intents of one transaction")
    payload = Intent.objects.order_by("-pk").values_list("payload", flat=True)[0]
    outcome.count("payload_bytes", len(str(payload)))
    if len(str(payload)) > MOST_PAYLOAD:
        outcome.violate("unbounded", f"an intent of {len(str(payload)):,} bytes")
    for tenant in LOOKED_AT:
        if (value := labels(tenant)) != (committed := Label.objects.filter(tenant=tenant).count()):
            outcome.violate("stale", f"{value} instead of {committed} of tenant {tenant}")
    return outcome
