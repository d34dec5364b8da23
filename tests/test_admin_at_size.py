"""The console on a large server: a million keys, a hundred thousand of them one group of one tenant."""

from collections import Counter

import pytest
import redis as redis_py
from console import client_of, console_stock, entry_of, make_shops, page, pages_of, scope_of, timed
from django.core.cache import caches
from django.db import connection
from django.test.utils import CaptureQueriesContext

from cacheadmin import browser, connections
from cacheadmin.admin import ids
from cacheadmin.connections import Link
from cacheadmin.store import store
from cacheadmin.targets import Target
from shop.models import User

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

BOXED = {"search", "plain keys"}
"""Pages that ask until a second is over, then offer to go on."""
ENTRIES = 100_000
KEYS = 1_000_000
COPY = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
for i = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  local member = string.format('abcdef!branch=%06d', i)
  redis.call('SET', ARGV[1] .. member, ARGV[4], 'PX', 10000000 + i)
  redis.call('ZADD', KEYS[1], ms + 10000000 + i, member)
end
"""


@pytest.fixture
def large(fresh_server, settings):
    """Fill a server; the tenant that has most of it."""
    server = fresh_server(args=("--maxmemory", "1gb", "--enable-debug-command", "local"))
    settings.CACHES = {
        alias: made | {"LOCATION": server.url_for(number)}
        for number, (alias, made) in enumerate(settings.CACHES.items())
    }
    connections.forget_links()
    tenant = str(make_shops("Ruby & Co", "Gold & Sons")[0].pk)
    console_stock(tenant, 1)
    names = store("query").place(tenant).group("console_stock")
    with redis_py.Redis.from_url(server.url_for(1)) as client:
        [member] = client.zrange(names.index, 0, 0)
        stored = client.get(names.values.encode() + member)
        for start in range(0, ENTRIES, 10_000):
            client.eval(COPY, 1, names.index, names.values, start, start + 9_999, stored)
        client.execute_command("DEBUG", "POPULATE", KEYS - ENTRIES, "filler", 10)
        assert client.dbsize() >= KEYS
        for i in range(500):
            caches["query"].set(f"tenant:{tenant}:letter{i}", i)
        yield tenant
    connections.forget_links()


def test_every_list_costs_the_same_round_trips_as_a_small_one(large, monkeypatch):
    admin = client_of(User.objects.create_superuser("amira"))
    made, call = Counter(), Link.call

    def count(self, *commands, **options):
        made[self.alias] += 1
        return call(self, *commands, **options)

    monkeypatch.setattr(Link, "call", count)
    entries = page("entry_list", ids.tenant_id(large), ids.group_id("query", "console_stock"))
    urls = {
        "tenants": page("tenant_list"),
        "groups": pages_of(large)["groups"],
        "all groups": page("group_list"),
        "first entries": entries,
        "entries in the middle": f"{entries}?p=2000",
        "last entries": f"{entries}?p=4001",
        "200 entries": f"{entries}?per_page=200&p=250",
        "latest expiry first": f"{entries}?o=-expires",
        "largest first": f"{entries}?o=-size",
        "search": f"{entries}?q=099999",
        "entry": page("entry_detail", entry_of(large)),
        "plain keys": page("plain_list", ids.tenant_id(large)),
        "invalidate a group": page("invalidate", on=scope_of(Target("group", "console_stock", large, "query"))),
        "invalidate a tenant": page("invalidate", on=scope_of(Target("tenant", "", large))),
    }
    for name, url in urls.items():
        admin.get(url, follow=True)
        made.clear()
        with CaptureQueriesContext(connection) as queries, timed(f"{name}, {KEYS:,} keys"):
            answer = admin.get(url, follow=True)
        assert answer.status_code == 200, name
        assert len(queries) <= 12, name
        assert made["query"] <= 3 or name in BOXED, (name, made)


def test_a_page_of_entries_is_two_round_trips_anywhere_in_a_large_group(large, round_trips):
    browser.entries("query", large, "console_stock", limit=25)
    for offset in (0, ENTRIES // 2, ENTRIES - 25):
        with round_trips() as sent:
            found = browser.entries("query", large, "console_stock", limit=25, offset=offset)
        assert len(found.rows) == 25
        assert len(sent) <= 2, sent
        assert not any("SCAN" in item.split() for item in sent)
