"""What the tests of the console share: users of each kind, a tenant's entries, the URL of every page."""

from __future__ import annotations

import html
import re
import time
from contextlib import contextmanager
from html.parser import HTMLParser

from django.contrib.auth.models import Permission
from django.core.cache import caches
from django.test import Client
from django.urls import reverse

from cacheadmin import browser
from cacheadmin.admin import ids
from cacheadmin.functions import cache_query_result, cache_tenant_query
from cacheadmin.models import Activity, InvalidationRule
from cacheadmin.stats import Mark, recorder, rollups
from cacheadmin.targets import ALL, Target
from shop.models import Branch, Category, InventoryItem, Tenant, User

ALL_PERMISSIONS = ("view_keys", "view_values", "invalidate", "warm", "clear_alias", "see_all_tenants")


@cache_tenant_query(timeout=900, key_prefix="console_stock", tags=["branch:{branch}"], grace=60, warm_with=[(1,), (2,)])
def console_stock(tenant_id, branch=1, text=""):
    """Return a value that changes from call to call where `text` says so."""
    if text == "explode":
        raise RuntimeError("secret-detail")
    return {
        "branch": branch,
        "text": text,
        "calls": calls.count(text) if text == "counts" else 0,
        "password": "hunter2",
    }


@cache_query_result(timeout=None, key_prefix="console_rates", alias="default", shared=True)
def console_rates(karat):
    """Return shared data."""
    return karat * 3


calls: list[str] = []


def hide_passwords(path, label):
    """Mask fields that are called password."""
    return label == "password"


def make_user(name, *permissions, tenant=None, is_staff=True):
    """Return a client that is logged in as a user with some permissions of the console."""
    user = User.objects.create_user(name, tenant=tenant, is_staff=is_staff)
    found = Permission.objects.filter(content_type__app_label="cacheadmin", codename__in=permissions)
    assert len(found) == len(permissions)
    user.user_permissions.set(found)
    return client_of(user)


def client_of(user):
    """Return a client that is logged in as a user."""
    client = Client()
    client.force_login(user)
    return client


def make_shops(*names):
    """Create tenants."""
    return [Tenant.objects.create(name=name, slug=f"shop-{i}") for i, name in enumerate(names)]


def make_items(tenant, *skus):
    """Create items of one branch and category of a tenant, one by default."""
    branch = Branch.objects.create(tenant=tenant, name="Main", city="Geneva")
    category = Category.objects.create(tenant=tenant, name="Rings", slug="rings")
    what = {"tenant": tenant, "branch": branch, "category": category, "name": "Ring", "weight": 3}
    return [InventoryItem.objects.create(**what, sku=sku, price=100, quantity=4) for sku in skus or ("R1",)]


def text_of(page):
    """Return what a reader sees of a page, a response or its text, below the console's tabs; its spaces folded."""
    whole = page if isinstance(page, str) else page.content.decode()
    body = whole.partition('class="cacheadmin-page">')[2] or whole
    shown = re.sub(r"<(script|style)\b.*?</\1>", " ", body, flags=re.DOTALL).replace("<wbr>", "")
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", shown)).split())


@contextmanager
def timed(name):
    """Print how long a page took; `pytest -rP` shows it. Nothing is asserted: other programs' load is in it."""
    begun = time.perf_counter()
    yield
    print(f"{(time.perf_counter() - begun) * 1000:8.1f} ms  {name}")


def entry_of(tenant, alias="query", group="console_stock"):
    """Return the id of the first entry of a group."""
    row = browser.entries(alias, tenant, group).rows[0]
    return ids.entry_id(alias, tenant, group, row.member)


def page(name, *args, **query):
    """Return the URL of a page of the console."""
    url = reverse(f"admin:cacheadmin_{name}", args=args)
    return url + ("?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else "")


def pages_of(tenant):
    """Return name -> URL of every page that shows something of a tenant (None: shared data), for GET."""
    alias, group = ("default", "console_rates") if tenant is None else ("query", "console_stock")
    return {
        "groups": page("tenant_detail", ids.tenant_id(tenant)),
        "entries": page("entry_list", ids.tenant_id(tenant), ids.group_id(alias, group)),
        "entry": page("entry_detail", entry_of(tenant, alias, group)),
        "plain": page("plain_list", ids.tenant_id(tenant)),
    }


def scope_of(*targets):
    """Return the id of a scope."""
    return ids.scope_id(targets)


def site_pages():
    """Return name -> URL of the pages of no tenant in particular, for GET."""
    names = ("console_changelist", "tenant_list", "function_list", "health", "activity_list", "find")
    return {name: page(name) for name in names}


MARKUP = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>"


def marked_up(tenant):
    """Count reads and invalidations of a tenant whose every name is markup, so that charts and tables show them."""
    recorder.reset()
    rollups.measure()
    for result, times in (("hit", 90), ("miss", 40)):
        for _ in range(times):
            recorder.read("query", MARKUP, tenant, result, 900_000)
    recorder.invalidated("query", tenant, f"group {MARKUP}", "rule", MARKUP)
    recorder.mark(Mark("deploy", MARKUP, time.time()))
    assert recorder.flush()
    Activity.objects.create(kind="warm", source="user", who=MARKUP, what=MARKUP, tenants=[tenant], reason=MARKUP)


def make_run(tenants, **values):
    """Return a line of Activity that is a run of some tenants."""
    return Activity.objects.create(kind="warm", source="user", who="amira", what="warm it", tenants=tenants, **values)


def make_sweep(**values):
    """Return a line of Activity that is a cancelled search for a pattern."""
    run = {"done": 1200, "total": 4000, "found": 3, "told_at": time.time()}
    targets = [Target("pattern", "*stock?:*", ALL, "query").to_json(), {"run": run}]
    made = {"kind": "invalidate", "source": "user", "who": "amira", "tenants": "*", "alias": "query", "entries": 3}
    return Activity.objects.create(**{**made, "state": "cancelled", "targets": targets, "what": "sweep it", **values})


def everything():
    """Return a target that reaches all tenants."""
    return Target("tenant", "", ALL)


def every_page():
    """
    Make a shop with something of everything, and return name -> URL of every page that answers GET.

    The database and the cache must be empty before.
    """
    ruby, _gold = make_shops("Ruby & Co", "Gold & Sons")
    tenant = str(ruby.pk)
    InvalidationRule.objects.create(
        name="a rule with quite a long name, made of many words",
        model="shop.InventoryItem",
        fields=["price", "status", "quantity", "weight", "metal", "karat"],
        targets=["group:" + "very_long_name_" * 6, "tag:branch:{branch_id}"],
    )
    rule = InvalidationRule.objects.create(name="stock", model="shop.InventoryItem", targets=["group:console_stock"])
    [item] = make_items(ruby)
    for number in range(1, 8):  # last, since a new rule and a new row drop what they name
        console_stock(tenant, number)
    console_rates(18)
    caches["default"].set(f"tenant:{tenant}:letter", {"to": "Amira", "lines": ["a", "b"]}, 300)
    recorder.flush()
    run, scope = make_run([tenant]), scope_of(Target("tenant", "", tenant))
    rules = {name: page(f"invalidationrule_{name}") for name in ("changelist", "add", "import", "export")}
    edits = {name: page(f"invalidationrule_{name}", rule.pk) for name in ("change", "history", "delete")}
    return {
        **site_pages(),
        **pages_of(tenant),
        "all groups": page("group_list"),
        "shared data": page("tenant_detail", ids.tenant_id(None)),
        "shared entries": pages_of(None)["entries"],
        "gone": page("entry_detail", ids.entry_id("query", tenant, "console_stock", "gone")),
        "found": page("find", q="o"),
        "function": page("function_detail", "console.console_stock"),
        "line": page("activity_detail", run.pk),
        "run": page("run_detail", run.pk),
        "running": page("run_detail", make_run([tenant], state="running").pk),
        "invalidate": page("invalidate", on=scope),
        "invalidate all": page("invalidate", on=scope_of(everything())),
        "warm": page("warm", on=scope),
        "clear": page("clear", on="query"),
        "pattern": page("pattern"),
        "pattern to look for": page("pattern", pattern="*stock?:*", alias="query"),
        "pattern of a scope": page("pattern", pattern="console_stock:*"),
        "sweep": page("run_detail", make_sweep().pk),
        "not found": page("tenant_detail", "no~such"),
        **{f"rule {name}": url for name, url in (rules | edits).items()},
        "host": reverse("admin:shop_inventoryitem_change", args=[item.pk]),
        "host's panel": reverse("admin:shop_inventoryitem_cached_data", args=[item.pk]),
    }


class Strict(HTMLParser):
    """Collects what a strict Content-Security-Policy would refuse: inline scripts, styles and handlers."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "style" or (
            tag == "script" and "src" not in attributes and attributes.get("type") != "application/json"
        ):
            self.found.append(f"<{tag}>")
        self.found += [f"<{tag} {name}>" for name in attributes if name == "style" or name.startswith("on")]
        if (attributes.get("href") or "").lower().startswith("javascript:"):
            self.found.append(f"<{tag} javascript:>")


def inline_of(html):
    """Return what is inline in a page."""
    parser = Strict()
    parser.feed(html)
    return parser.found
