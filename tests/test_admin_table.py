"""Who may do what: every address of the console, every kind of user, every method, and every answer written down."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from console import ALL_PERMISSIONS, client_of, console_rates, console_stock, entry_of, make_shops, make_user, scope_of
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from cacheadmin.admin import ids, runs
from cacheadmin.models import Activity, Console, InvalidationRule
from cacheadmin.targets import ALL, Target
from shop.cache import Tenancy
from shop.models import Branch, Category, InventoryItem, Tenant, User

pytestmark = pytest.mark.django_db

RULES = ("view", "add", "change", "delete")
EVERYTHING = (*ALL_PERMISSIONS, *(f"{deed}_invalidationrule" for deed in RULES), "import_rules")
BOUND = tuple(name for name in EVERYTHING if name != "see_all_tenants")

PEOPLE: dict[str, tuple[str, ...]] = {
    # One permission of the console each, and of the rules.
    "none": (),
    "keys": ("view_keys",),
    "values": ("view_values",),
    "invalidate": ("invalidate",),
    "warm": ("warm",),
    "clear": ("clear_alias",),
    "every": ("see_all_tenants",),
    "view": ("view_invalidationrule",),
    "add": ("add_invalidationrule",),
    "change": ("change_invalidationrule",),
    "delete": ("delete_invalidationrule",),
    "import": ("import_rules",),
    # What people are given.
    "looks": ("view_keys", "see_all_tenants"),
    "drops": ("view_keys", "see_all_tenants", "invalidate"),
    "warms": ("view_keys", "see_all_tenants", "warm"),
    "clears": ("view_keys", "see_all_tenants", "clear_alias"),
}
"""Staff with some permissions. Besides them:

`anon` is not logged in · `buyer` has all permissions, but is no staff · `own` and `other` have all but to see all
tenants, bound to the tenant of the address and to another one · `alias` has all, and may see another alias only ·
`root` is a superuser, `frozen` too, while the site is read-only."""

HEADS = ["anon", "buyer", *PEOPLE, "own", "other", "alias", "root", "frozen"]

# o 200 · > a redirect · D a redirect, and a deed was done, which stands in the admin's log · L to the login · 3 403
# 4 404 · x 405, the method is refused. A line is an address and GET, with the answers in the order of HEADS, the next
# one POST. Heads are cut to three letters, `warms` and `clears` are wms and cls.
TABLE = """
--                      | ano buy non key val inv war cle eve vie add cha del imp loo dro wms cls own oth ali roo fro
console_changelist GET  | L   L   3   o   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   o   o   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
data_overview GET       | L   L   3   o   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   o   o   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
find GET                | L   L   3   o   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   o   o   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
tenant_list GET         | L   L   3   o   3   3   3   3   3   3   3   3   3   3   o   o   o   o   >   >   o   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
group_list GET          | L   L   3   >   3   3   3   3   3   3   3   3   3   3   o   o   o   o   >   >   o   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
tenant_detail GET       | L   L   3   4   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   4   o   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
plain_list GET          | L   L   3   4   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   4   o   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
entry_list GET          | L   L   3   4   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   4   4   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
entry_detail GET        | L   L   3   4   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   4   4   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
entry_recompute GET     | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   x   3   x   x   x   x   3
    POST                | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   D   3   D   4   4   D   3
function_list GET       | L   L   3   o   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   o   o   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
function_detail GET     | L   L   3   o   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   o   4   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
health GET              | L   L   3   o   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   o   o   o   o
    POST                | L   L   3   >   3   3   3   3   3   3   3   3   3   3   >   >   >   >   >   >   >   >   >
activity_list GET       | L   L   3   o   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   o   o   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
data_activity GET       | L   L   3   o   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   o   o   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
activity_retry GET      | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   x   3   3   x   x   x   x   3
    POST                | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   >   3   3   4   4   4   >   3
activity_detail GET     | L   L   3   4   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   4   4   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
run_detail GET          | L   L   3   4   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   4   4   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
data_run GET            | L   L   3   4   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o   4   4   o   o
    POST                | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
run_cancel GET          | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
    POST                | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   D   3   D   4   4   D   3
run_pace   GET          | L   L   3   x   3   3   3   3   3   3   3   3   3   3   x   x   x   x   x   x   x   x   x
    POST                | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   D   3   D   4   4   D   3
invalidate GET          | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   o   3   3   o   4   4   o   3
    POST                | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   D   3   3   D   4   4   D   3
warm GET                | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   o   3   o   4   4   o   3
    POST                | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   D   3   D   4   4   D   3
clear GET               | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   o   4   4   4   o   3
    POST                | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   D   4   4   4   D   3
pattern GET             | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   o   3   3   4   4   o   o   3
    POST                | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   D   3   3   4   4   4   D   3
rule_changelist GET     | L   L   3   3   3   3   3   3   3   o   3   o   3   3   3   3   3   3   o   o   o   o   o
    POST                | L   L   3   3   3   3   3   3   3   >   3   D   3   3   3   3   3   3   D   D   D   D   >
rule_add GET            | L   L   3   3   3   3   3   3   3   3   o   3   3   3   3   3   3   3   o   o   o   o   3
    POST                | L   L   3   3   3   3   3   3   3   3   D   3   3   3   3   3   3   3   D   D   D   D   3
rule_change GET         | L   L   3   3   3   3   3   3   3   o   3   o   3   3   3   3   3   3   o   o   o   o   o
    POST                | L   L   3   3   3   3   3   3   3   3   3   D   3   3   3   3   3   3   D   D   D   D   3
rule_delete GET         | L   L   3   3   3   3   3   3   3   3   3   3   o   3   3   3   3   3   o   o   o   o   3
    POST                | L   L   3   3   3   3   3   3   3   3   3   3   D   3   3   3   3   3   D   D   D   D   3
rule_history GET        | L   L   3   3   3   3   3   3   3   o   3   o   3   3   3   3   3   3   o   o   o   o   o
    POST                | L   L   3   3   3   3   3   3   3   o   3   o   3   3   3   3   3   3   o   o   o   o   o
rule_import GET         | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   o   o   o   o   3
    POST                | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   o   o   o   o   3
rule_export GET         | L   L   3   3   3   3   3   3   3   o   3   o   3   3   3   3   3   3   o   o   o   o   o
    POST                | L   L   3   3   3   3   3   3   3   o   3   o   3   3   3   3   3   3   o   o   o   o   o
rule_preview GET        | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3
    POST                | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   o   o   o   o   o
rule_choices GET        | L   L   3   3   3   3   3   3   3   o   o   o   3   3   3   3   3   3   o   o   o   o   o
    POST                | L   L   3   3   3   3   3   3   3   o   o   o   3   3   3   3   3   3   o   o   o   o   o
item_cached_data GET    | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   o   4   o   o   o
    POST                | L   L   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x
item_invalidate GET     | L   L   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   3   >   4   >   >   3
    POST                | L   L   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x   x
"""


@dataclass
class Place:
    """Everything that an address may name."""

    ruby: str
    gold: str
    item: int
    rule: int
    run: int
    entry: str

    def fill(self):
        """Have the entry there again, and the run running, whatever the last request did."""
        console_stock(self.ruby, 1)
        Activity.objects.filter(pk=self.run).update(state="running")
        made = {"pk": self.rule, "name": "stock", "model": "shop.Branch", "targets": ["group:console_stock"]}
        InvalidationRule.objects.get_or_create(pk=self.rule, defaults=made)


@pytest.fixture
def place(monkeypatch):
    monkeypatch.setattr(runs, "launch", lambda job: None)
    ruby, gold = make_shops("Ruby & Co", "Gold & Sons")
    console_stock(str(ruby.pk), 1)
    console_rates(18)
    branch = Branch.objects.create(tenant=ruby, name="Main", city="Geneva")
    category = Category.objects.create(tenant=ruby, name="Rings", slug="rings")
    item = InventoryItem.objects.create(
        tenant=ruby, branch=branch, category=category, sku="R1", name="Ring", weight=3, price=100, quantity=4
    )
    rule = InvalidationRule.objects.create(name="stock", model="shop.Branch", targets=["group:console_stock"])
    run = Activity.objects.create(
        kind="warm", source="user", who="x", what="warm it", tenants=[str(ruby.pk)], alias="query", state="running"
    )
    return Place(str(ruby.pk), str(gold.pk), item.pk, rule.pk, run.pk, entry_of(str(ruby.pk)))


def addresses(place):
    """Return name -> arguments of the address, query, and what is posted: a deed that would be done if it may be."""
    tenant, group = ids.tenant_id(place.ruby), ids.group_id("query", "console_stock")
    scope = scope_of(Target("tenant", "", place.ruby, "query"))
    glob = scope_of(Target("pattern", "*stoc?:*", ALL, "query"))
    typed = {"model": "shop.Branch", "events": ["update"], "enabled": "1", "targets-kind": "group"}
    typed |= {"targets-name": "console_stock", "targets-alias": "", "targets-tenant": "same"}
    file = {"format": "json"}
    return {
        "cacheadmin_console_changelist": ([], {}, {}),
        "cacheadmin_data_overview": ([], {}, {}),
        "cacheadmin_find": ([], {"q": "a"}, {}),
        "cacheadmin_tenant_list": ([], {}, {}),
        "cacheadmin_group_list": ([], {}, {}),
        "cacheadmin_tenant_detail": ([tenant], {}, {}),
        "cacheadmin_plain_list": ([tenant], {"alias": "default"}, {}),
        "cacheadmin_entry_list": ([tenant, group], {}, {}),
        "cacheadmin_entry_detail": ([place.entry], {}, {}),
        "cacheadmin_entry_recompute": ([place.entry], {}, {}),
        "cacheadmin_function_list": ([], {}, {}),
        "cacheadmin_function_detail": (["console.console_stock"], {}, {}),
        "cacheadmin_health": ([], {}, {}),
        "cacheadmin_activity_list": ([], {}, {}),
        "cacheadmin_data_activity": ([], {}, {}),
        "cacheadmin_activity_retry": ([], {}, {}),
        "cacheadmin_activity_detail": ([place.run], {}, {}),
        "cacheadmin_run_detail": ([place.run], {}, {}),
        "cacheadmin_data_run": ([place.run], {}, {}),
        "cacheadmin_run_cancel": ([place.run], {}, {}),
        "cacheadmin_run_pace": ([place.run], {}, {"pace": "slow"}),
        "cacheadmin_invalidate": ([], {"on": scope}, {"on": scope, "confirmed": "yes"}),
        "cacheadmin_warm": ([], {"on": scope}, {"on": scope}),
        "cacheadmin_clear": ([], {"on": "query"}, {"on": "query", "name": "query"}),
        "cacheadmin_pattern": ([], {"pattern": "*stoc?:*", "alias": "query"}, {"on": glob, "name": "*stoc?:*"}),
        "cacheadmin_invalidationrule_changelist": ([], {}, {"action": "switch_off", "_selected_action": [place.rule]}),
        "cacheadmin_invalidationrule_add": ([], {}, typed | {"name": "new"}),
        "cacheadmin_invalidationrule_change": ([place.rule], {}, typed | {"name": "stock", "note": "x"}),
        "cacheadmin_invalidationrule_delete": ([place.rule], {}, {"post": "yes"}),
        "cacheadmin_invalidationrule_history": ([place.rule], {}, {}),
        "cacheadmin_invalidationrule_import": ([], {}, file),
        "cacheadmin_invalidationrule_export": ([], {"format": "json"}, {}),
        "cacheadmin_invalidationrule_preview": ([], {}, typed),
        "cacheadmin_invalidationrule_choices": ([], {"model": "shop.Branch"}, {}),
        "shop_inventoryitem_cached_data": ([place.item], {}, {}),
        "shop_inventoryitem_invalidate": ([place.item], {}, {}),
    }


class AliasTenancy(Tenancy):
    """The shop's, with a user who may see one alias only."""

    def allowed_aliases(self, user):
        return ["default"] if user.username == "alias" else super().allowed_aliases(user)


def client_for(who, place, settings):
    """Return the client of one of HEADS."""
    settings.CACHEADMIN = {**settings.CACHEADMIN, "TENANCY": f"{__name__}.AliasTenancy", "READ_ONLY": who == "frozen"}
    if who == "anon":
        return Client()
    if who in ("root", "frozen"):
        return client_of(User.objects.create_superuser(who))
    tenant = {"own": place.ruby, "other": place.gold}.get(who)
    permissions = PEOPLE.get(who, EVERYTHING if tenant is None else BOUND)
    client = make_user(who, *permissions, tenant=tenant and Tenant.objects.get(pk=tenant), is_staff=who != "buyer")
    if who not in ("buyer", *PEOPLE):  # the host's own pages ask for the host's own permissions
        give_the_hosts(User.objects.get(username=who))
    return client


def give_the_hosts(user):
    """Let a user see items in the shop's own admin."""
    user.user_permissions.add(Permission.objects.get(codename="view_inventoryitem"))


def sign(response, *, is_done=False):
    """Return an answer as the table writes it; a deed that was done must not look like anything else."""
    if response.status_code == 302:
        return "D" if is_done else "L" if "/login/" in response.url else ">"
    assert not is_done
    return {200: "o", 403: "3", 404: "4", 405: "x"}[response.status_code]


def rows():
    """Return (name, method) -> answers by user."""
    found, name = {}, ""
    for line in TABLE.strip().splitlines()[1:]:
        label, _bar, cells = line.partition("|")
        *named, method = label.split()
        name = named[0] if named else name
        found[name, method] = dict(zip(HEADS, cells.split(), strict=True))
    return found


def full_name(short):
    """Return the name of an address, which the table shortens."""
    if short.startswith("item_"):
        return short.replace("item", "shop_inventoryitem", 1)
    return "cacheadmin_" + short.replace("rule_", "invalidationrule_", 1)


def named_addresses():
    """Return the names of all addresses, of the console, the rules and one host's admin, as the URLconf has them."""
    ours = [*admin.site._registry[Console].urls, *admin.site._registry[InvalidationRule].urls]
    hosts = [url for url in admin.site._registry[InventoryItem].urls if "admin/mixins" in source_of(url.callback)]
    return {url.name for url in (*ours, *hosts) if url.name}


def source_of(view: Callable) -> str:
    """Return the file in which the innermost function of a view is written."""
    while hasattr(view, "__wrapped__"):
        view = view.__wrapped__
    return view.__code__.co_filename


def test_every_address_has_its_rows(place):
    assert {full_name(name) for name, _method in rows()} == named_addresses() == set(addresses(place))
    assert {method for _name, method in rows()} == {"GET", "POST"}


@pytest.mark.parametrize("who", HEADS)
def test_every_answer_is_the_one_in_the_table(place, settings, who):
    client, table, found = client_for(who, place, settings), rows(), {}
    for short, method in table:
        args, query, data = addresses(place)[full_name(short)]
        url = reverse(f"admin:{full_name(short)}", args=args)
        before = LogEntry.objects.count()
        answer = client.get(url, query) if method == "GET" else client.post(url, data)
        found[short, method] = sign(answer, is_done=LogEntry.objects.count() > before)
        if found[short, method] == "D":
            place.fill()
        if method == "POST":
            refused = {sign(getattr(client, other)(url, data)) for other in ("put", "delete")}
            assert refused <= {"L", "3", "4", "x"}, short
        elif who in ("anon", "other", "root"):
            assert sign(client.head(url, query)) == found[short, method], short
    assert found == {row: answers[who] for row, answers in table.items()}


def test_the_page_of_a_rule_by_its_number_leads_to_its_form(place):
    url = reverse("admin:cacheadmin_invalidationrule_changelist") + f"{place.rule}/"
    assert client_of(User.objects.create_superuser("root")).get(url).url.endswith(f"/{place.rule}/change/")
