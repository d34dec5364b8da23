"""The rules in the admin: one table for both kinds, a form that reads as a sentence, a preview of what it would do."""

import json
import re

import pytest
from console import make_items, text_of
from django.contrib.admin.models import CHANGE as CHANGED
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import translation

from cacheadmin import ABSENT, rules, testing
from cacheadmin.admin import rule_changes, rule_form, rule_list, rule_preview, told
from cacheadmin.exceptions import CacheAway, InvalidRule
from cacheadmin.models import Activity, InvalidationRule
from cacheadmin.rules import EVENTS, KINDS, TENANTS, Rule
from cacheadmin.stats import recorder
from shop.inventory import inventory_list
from shop.models import Branch, Tenant, User

LIST = "admin:cacheadmin_invalidationrule_changelist"
ADD = "admin:cacheadmin_invalidationrule_add"
CHANGE = "admin:cacheadmin_invalidationrule_change"
HISTORY = "admin:cacheadmin_invalidationrule_history"
PREVIEW = "admin:cacheadmin_invalidationrule_preview"
CHOICES = "admin:cacheadmin_invalidationrule_choices"


def make_rule(name="stock", **columns):
    targets = [{"kind": "group", "name": "inventory_list", "alias": None, "tenant": "same"}]
    return InvalidationRule.objects.create(
        **{"name": name, "model": "shop.InventoryItem", "targets": targets, **columns}
    )


def typed(*targets, **fields):
    """What a browser sends for a rule; targets are (kind, name[, alias[, tenant]])."""
    rows = [(*target, *("", "same")[len(target) - 2 :]) for target in targets or [("group", "inventory_list")]]
    return {
        "name": "stock",
        "model": "shop.InventoryItem",
        "events": ["create", "update"],
        "fields": "",
        "tenant": "",
        "enabled": "1",
        "note": "",
        "targets-kind": [row[0] for row in rows],
        "targets-name": [row[1] for row in rows],
        "targets-alias": [row[2] for row in rows],
        "targets-tenant": [row[3] for row in rows],
        **fields,
    }


@pytest.fixture
def shop(db):
    tenants = [Tenant.objects.create(name=name, slug=name.lower()) for name in ("Ruby", "Gold")]
    for tenant in tenants:
        make_items(tenant)
    return tenants


@pytest.fixture
def staff(client, django_user_model):
    """`staff("view_invalidationrule", …, tenant=…)` logs a member of the staff in who has these permissions."""

    def login(*codenames, tenant=None):
        user = django_user_model.objects.create_user("clerk", is_staff=True, tenant=tenant)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return login


def row_of(answer, name, *, is_code=False):
    [row] = [row for row in answer.context["rows"] if row.name == name and row.is_code == is_code]
    return row


# --- the list -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_rules_in_code_and_in_the_database_stand_in_one_table(admin_client):
    made = make_rule()
    answer = admin_client.get(reverse(LIST))
    assert row_of(answer, "stock").url == reverse(CHANGE, args=[made.pk])
    in_code = row_of(answer, "sales", is_code=True)
    assert (in_code.source, in_code.url, in_code.pk) == ("shop/cache_rules.py", "", None)
    assert in_code.sentence.startswith("Sale → sales…")
    assert answer.content.decode().count("Override here") == len(rules.code_rules())


@pytest.mark.django_db
def test_a_rule_in_code_that_the_database_replaces_says_so(admin_client):
    made = make_rule("sales")
    answer = admin_client.get(reverse(LIST))
    replaced = row_of(answer, "sales", is_code=True)
    assert (replaced.state, replaced.override_url) == ("replaced", "")
    assert replaced.replaced_by == reverse(CHANGE, args=[made.pk])


@pytest.mark.django_db
def test_override_here_opens_a_form_filled_in(admin_client):
    url = row_of(admin_client.get(reverse(LIST)), "sales", is_code=True).override_url
    form = admin_client.get(url).context["form"]
    rule = next(rule for rule in rules.code_rules() if rule.name == "sales")
    assert form.initial["name"] == "sales"
    assert [row["name"] for row in form.target_rows if row["name"]] == [target.name for target in rule.targets]
    sent = typed(*[(t.kind, t.name, t.alias or "", t.tenant) for t in rule.targets], name="sales", model=rule.model)
    assert admin_client.post(url, {**sent, "events": list(rule.events)}).status_code == 302
    stored = next(each for each in rules.all_rules() if each.name == "sales")
    assert (stored.source, stored.targets, stored.events) == ("database", rule.targets, rule.events)


@pytest.mark.django_db
def test_a_broken_rule_is_named_with_what_is_wrong(admin_client):
    make_rule("typo", fields=["quantiti"])
    make_rule("no list", targets={"not": "a list"})
    answer = admin_client.get(reverse(LIST), {"state": "broken"})
    assert [row.name for row in answer.context["rows"]] == ["no list", "typo"]
    assert "Field shop.InventoryItem.quantiti does not exist. Did you mean quantity?" in answer.content.decode()


@pytest.mark.django_db
def test_a_module_of_rules_that_does_not_import_is_a_note(admin_client, monkeypatch):
    make_rule()

    def broken():
        raise InvalidRule("shop.cache_rules cannot be imported: SyntaxError")

    monkeypatch.setattr(rule_list, "code_rules", broken)
    answer = admin_client.get(reverse(LIST))
    assert "shop.cache_rules cannot be imported" in answer.content.decode()
    assert [row.name for row in answer.context["rows"]] == ["stock"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"source": "database"}, ["off", "on"]),
        ({"source": "database", "state": "off"}, ["off"]),
        ({"source": "database", "state": "on"}, ["on"]),
        ({"source": "database", "alias": "query"}, ["on"]),
        ({"source": "database", "alias": "api"}, ["off", "on"]),
        ({"source": "database", "q": "GOLD"}, ["off"]),
        ({"source": "database", "model": "shop.GoldRate"}, ["off"]),
        ({"source": "nonsense", "state": "-1", "q": "no such rule"}, []),
    ],
)
def test_the_list_is_filtered(admin_client, query, names):
    make_rule("off", model="shop.GoldRate", enabled=False, targets=["group:gold_rate"])
    make_rule("on", targets=[{"kind": "group", "name": "x", "alias": "query"}, {"kind": "group", "name": "y"}])
    if query.get("alias") == "query":
        InvalidationRule.objects.filter(name="off").update(targets=[{"kind": "group", "name": "x", "alias": "default"}])
    if query.get("alias") == "api":
        InvalidationRule.objects.filter(name="on").update(targets=["group:y"])
    answer = admin_client.get(reverse(LIST), query)
    assert answer.status_code == 200
    assert sorted(row.name for row in answer.context["rows"]) == names


@pytest.mark.django_db
@pytest.mark.parametrize(
    "query", [{"p": "-1"}, {"p": "9" * 30}, {"per_page": "1e9"}, {"o": "drop table"}, {"q": "%00\x00"}]
)
def test_nonsense_in_the_address_is_the_nearest_valid_list(admin_client, query):
    assert admin_client.get(reverse(LIST), query).status_code == 200


@pytest.mark.django_db
def test_the_list_says_when_a_rule_fired(admin_client):
    recorder.invalidated("query", "12", "group inventory_list", "rule", "inventory, item names")
    recorder.invalidated("query", "12", "prefix report", "rule", "inventory, item names")
    recorder.invalidated("query", "13", "group inventory_list", "rule", "inventory")
    recorder.invalidated("query", "12", "group inventory_list", "user", "sales")
    recorder.flush()
    answer = admin_client.get(reverse(LIST))
    times = {row.name: row.fired.times for row in answer.context["rows"]}
    assert {name: n for name, n in times.items() if n} == {"inventory": 2, "item names": 1}
    never = {row.name for row in admin_client.get(reverse(LIST), {"state": "never"}).context["rows"]}
    assert "sales" in never
    assert "inventory" not in never


@pytest.mark.django_db
def test_rules_that_fire_together_are_told_apart_whatever_their_names(admin_client):
    make_rule("a, b", enabled=False)
    make_rule("b", enabled=False)
    recorder.invalidated("query", "12", "group x", "rule", "a, b, c")
    recorder.flush()
    answer = admin_client.get(reverse(LIST), {"source": "database"})
    assert {row.name: row.fired.times for row in answer.context["rows"]} == {"a, b": 1, "b": 1}


@pytest.mark.django_db
def test_rules_are_switched_and_the_log_tells_it(admin_client):
    one, two = make_rule("one"), make_rule("two")
    sent = {"action": "switch_off", "_selected_action": [one.pk, two.pk, "x", "9" * 30]}
    assert admin_client.post(reverse(LIST), sent).status_code == 302
    assert not any(rule.enabled for rule in InvalidationRule.objects.all())
    assert "one" not in {rule.name for rule in rules.for_model("shop.InventoryItem")}
    assert {entry.get_change_message() for entry in LogEntry.objects.all()} == {"Changed enabled."}
    lines = Activity.objects.filter(kind="rule")
    assert [told.reason_of(line) for line in lines] == ["enabled: on → off"] * 2
    admin_client.post(reverse(LIST), {"action": "switch_on", "_selected_action": [one.pk]})
    assert InvalidationRule.objects.get(name="one").enabled


@pytest.mark.django_db
def test_selected_rules_are_exported_and_deleted(admin_client):
    one, two = make_rule("one"), make_rule("two")
    answer = admin_client.post(reverse(LIST), {"action": "export_selected", "_selected_action": [one.pk]}, follow=True)
    assert answer.context["count"] == 1
    sent = {"action": "delete_selected", "_selected_action": [one.pk, two.pk]}
    question = admin_client.post(reverse(LIST), sent).content.decode()
    assert "Delete 2 rules?" in question
    assert 'aria-label="Cache"' in question
    assert "what is cached lives until its timeout" in question
    assert InvalidationRule.objects.count() == 2
    admin_client.post(reverse(LIST), {**sent, "post": "yes"})
    assert not InvalidationRule.objects.exists()
    assert set(Activity.objects.values_list("what", flat=True)) == {"Deleted rule one", "Deleted rule two"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "sent", [{}, {"action": "no such"}, {"action": "switch_off"}, {"action": "", "_selected_action": "1"}]
)
def test_an_action_without_sense_does_nothing(admin_client, sent):
    make_rule()
    assert admin_client.post(reverse(LIST), sent).status_code == 302
    assert InvalidationRule.objects.get().enabled


# --- the form -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_rule_is_saved_from_the_form_and_is_in_force_at_once(admin_client):
    sent = typed(
        ("prefix", "inventory"),
        ("tag", "branch:{branch_id}", "query", "all"),
        ("tenant", "", "", "shared"),
        ("group", ""),
        name="",
        fields="price, quantity,, price",
        tenant="branch__tenant_id",
        warm="on",
    )
    assert admin_client.post(reverse(ADD), sent).status_code == 302
    rule = InvalidationRule.objects.get()
    assert rule.name == "Inventory item → inventory… + tag branch:{branch_id} + everything"
    assert rule.fields == ["price", "quantity"]
    assert rule.targets == [
        {"kind": "prefix", "name": "inventory", "alias": None, "tenant": "same"},
        {"kind": "tag", "name": "branch:{branch_id}", "alias": "query", "tenant": "all"},
        {"kind": "tenant", "name": "", "alias": None, "tenant": "shared"},
    ]
    assert (rule.warm, rule.enabled, rule.events) == (True, True, ["create", "update"])
    assert rule.name in {each.name for each in rules.for_model("shop.InventoryItem")}


@pytest.mark.django_db
def test_a_form_sent_back_as_it_was_shown_changes_nothing(admin_client):
    made = make_rule(fields=["price"], tenant="-", note="why", enabled=False, events=["m2m", "delete"])
    form = admin_client.get(reverse(CHANGE, args=[made.pk])).context["form"]
    rows = [(row["kind"], row["name"], row["alias"], row["tenant"]) for row in form.target_rows]
    sent = typed(*rows, name="stock", events=["delete", "m2m"], fields="price", tenant="-", note="why", enabled="0")
    before = InvalidationRule.objects.values().get()
    assert admin_client.post(reverse(CHANGE, args=[made.pk]), sent).status_code == 302
    after = InvalidationRule.objects.values().get()
    assert {**after, "events": sorted(after["events"])} == {**before, "events": sorted(before["events"])}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("sent", "field", "message"),
    [
        (typed(model="shop.Nope"), "model", "There is no model"),
        (typed(model=""), "model", "required"),
        (typed(events=[]), "events", "required"),
        (typed(events=["explode"]), "events", "not one of the available choices"),
        (typed(fields="quantiti"), "fields", "Did you mean quantity?"),
        (typed(tenant="brnch__tenant_id"), "tenant", "Did you mean branch"),
        (typed(("group", "")), "targets", "drops nothing yet"),
        (typed(("group", "x", "qery")), "targets", "wrong"),
        (typed(("tag", "branch:{brnch_id}")), "targets", "wrong"),
        (typed(("nonsense", "x")), "targets", "wrong"),
        (typed(("group", "x", "", "nobody")), "targets", "wrong"),
        (typed(*[("group", f"g{i}") for i in range(51)]), "targets", "at most 50"),
        (typed(name="x" * 101), "name", "at most 100"),
        (typed(note="x" * 2001), "note", "at most 2000"),
    ],
)
def test_errors_stand_at_their_field(admin_client, sent, field, message):
    answer = admin_client.post(reverse(ADD), sent)
    assert answer.status_code == 200
    assert message in str(answer.context["form"].errors[field])
    assert not InvalidationRule.objects.exists()


@pytest.mark.django_db
def test_errors_of_a_target_stand_at_its_row(admin_client):
    sent = typed(("group", "fine"), ("tag", "branch:{brnch_id}"), ("group", "fine"), ("group", "x", "qery"))
    form = admin_client.post(reverse(ADD), sent).context["form"]
    told = [" ".join(row["errors"]) for row in form.target_rows]
    assert [bool(text) for text in told] == [False, True, False, True, False, False]
    assert "Did you mean branch_id" in told[1]
    assert "Did you mean query" in told[3]


@pytest.mark.django_db
def test_a_model_that_is_gone_stays_where_it_stands_and_is_an_error(admin_client):
    made = make_rule(model="shop.Gone")
    answer = admin_client.get(reverse(CHANGE, args=[made.pk]))
    assert ("shop.Gone", "shop.Gone") in answer.context["form"].fields["model"].choices
    answer = admin_client.post(reverse(CHANGE, args=[made.pk]), typed(model="shop.Gone"))
    assert "There is no model" in str(answer.context["form"].errors["model"])


@pytest.mark.django_db
def test_two_rules_never_have_one_name(admin_client):
    make_rule("stock")
    answer = admin_client.post(reverse(ADD), typed(name="stock"))
    assert "already exists" in str(answer.context["form"].errors["name"])
    admin_client.post(reverse(ADD), typed(name=""))
    admin_client.post(reverse(ADD), typed(name=""))
    names = set(InvalidationRule.objects.values_list("name", flat=True))
    assert names == {"stock", "Inventory item → inventory_list", "Inventory item → inventory_list 2"}


@pytest.mark.django_db
def test_the_history_says_field_by_field_what_changed(admin_client):
    made = make_rule(fields=["price"])
    sent = typed(
        ("group", "inventory_list"), ("prefix", "report"), fields="price, status", events=list(EVENTS), note="n"
    )
    admin_client.post(reverse(CHANGE, args=[made.pk]), sent)
    [entry] = admin_client.get(reverse(HISTORY, args=[made.pk])).context["entries"]
    assert entry.parts == [
        "events: +\u00a0m2m",
        "fields: +\u00a0status",
        "targets: +\u00a0prefix:report",
        "note: – → n",
    ]
    assert Activity.objects.get().what == "Changed rule stock"


@pytest.mark.django_db
def test_each_reader_of_the_log_gets_it_in_his_own_language(admin_client):
    """One edits in German; what is kept of it has no language, and another reads it in English."""
    made = make_rule(fields=["price", "status"])
    sent = typed(fields="price", enabled="0", note="n", events=["create", "update", "delete"])
    with translation.override("de"):
        assert admin_client.post(reverse(CHANGE, args=[made.pk]), sent).status_code == 302
        admin_client.post(reverse(CHANGE, args=[made.pk]), sent)  # the same again
    line, entry = Activity.objects.order_by("pk").first(), LogEntry.objects.order_by("pk").first()
    assert line.reason == ""
    assert "aus" not in entry.change_message
    page = reverse("admin:cacheadmin_activity_detail", args=[line.pk])
    for language, switched, nothing, log in (
        ("de", "enabled: an → aus", "Keine Felder geändert.", "Felder, eingeschaltet und Notiz geändert."),
        ("en", "enabled: on → off", "No fields changed.", "Changed fields, enabled and note."),
    ):
        with translation.override(language):
            newest, oldest = admin_client.get(reverse(HISTORY, args=[made.pk])).context["entries"]
            assert oldest.parts == ["fields: −\u00a0status", switched, "note: – → n"]
            assert newest.parts == [nothing]
            assert f"fields: − status; {switched}; note: – → n" in text_of(admin_client.get(page))
            assert entry.get_change_message() == log


@pytest.mark.django_db
def test_the_log_of_an_import_and_of_others_is_told_too(admin_client):
    made = make_rule()
    many = [f"field_{i}" for i in range(25)]
    found = rule_changes.changes(rule_changes.columns_of(made) | {"fields": many}, made)
    told_as = [
        rule_changes.message(found, is_new=False, is_imported=True),
        rule_changes.message([], is_new=True),
        "[not JSON",
        "one; two",
        [{"changed": {"fields": ["note"]}}],
    ]
    for said in told_as:
        LogEntry.objects.log_actions(User.objects.get().pk, [made], CHANGED, change_message=said, single_object=True)
    entries = LogEntry.objects.order_by("pk")
    names = ", ".join(f"−\u00a0field_{i}" for i in range(20))
    assert [rule_changes.told_by(entry) for entry in entries] == [
        [f"Imported: fields: {names} and 5 more"],
        ["Added."],
        ["[not JSON"],
        ["one", "two"],
        ["Changed note."],
    ]


@pytest.mark.django_db
def test_a_new_rule_begins_with_the_usual_events_and_switched_on(admin_client):
    html = admin_client.get(reverse(ADD)).content.decode()
    assert re.findall(r'name="events" value="(\w+)"[^>]* checked', html) == ["create", "update", "delete"]
    assert re.findall(r'name="enabled" value="(\d)"[^>]* checked', html) == ["1"]


@pytest.mark.django_db
def test_completions_follow_the_model(admin_client):
    found = admin_client.get(reverse(CHOICES), {"model": "shop.InventoryItem"}).json()
    assert {"price", "tags"} <= set(found["fields"])
    assert {"*", "-", "tenant_id", "branch__tenant_id"} <= set(found["paths"])
    assert "inventory_list" in found["groups"]
    assert "branch:{branch_id}" in found["tags"]
    assert admin_client.get(reverse(CHOICES), {"model": "no.Such"}).json()["fields"] == []


def test_every_event_kind_and_owner_has_a_label():
    assert set(rule_form.EVENT_LABELS) == set(EVENTS)
    assert set(rule_form.KIND_LABELS) == set(KINDS)
    assert set(rule_form.WHOSE_LABELS) == set(TENANTS)


# --- the preview --------------------------------------------------------------------------------------------------


def test_the_preview_counts_what_would_be_dropped_for_the_tenant(admin_client, shop):
    ruby, gold = shop
    for page in (1, 2, 3):
        inventory_list(ruby.pk, page=page)
    inventory_list(gold.pk)
    sent = typed(("group", "inventory_list"), preview_tenant=str(ruby.pk))
    html = admin_client.post(reverse(PREVIEW), sent).json()["html"]
    assert "Saving one inventory item would drop 3 entries" in html
    sent["preview_tenant"] = str(gold.pk)
    assert "would drop 1 entry" in admin_client.post(reverse(PREVIEW), sent).json()["html"]
    assert not InvalidationRule.objects.exists()
    assert inventory_list.peek(gold.pk) is not ABSENT


def test_the_preview_button_shows_the_same_and_saves_nothing(admin_client, shop):
    inventory_list(shop[0].pk)
    sent = typed(("group", "inventory_list"), preview_tenant=str(shop[0].pk), _preview="1", note="not saved")
    answer = admin_client.post(reverse(ADD), sent)
    assert answer.context["preview"].entries == 1
    assert b"nothing is saved yet" in answer.content
    assert b"not saved" in answer.content
    assert not InvalidationRule.objects.exists()
    made = make_rule(note="old")
    answer = admin_client.post(reverse(CHANGE, args=[made.pk]), sent)
    assert answer.context["preview"].entries == 1
    assert InvalidationRule.objects.get().note == "old"


def test_the_preview_fills_placeholders_from_a_row(admin_client, shop):
    ruby = shop[0]
    mine, other = Branch.objects.get(tenant=ruby), Branch.objects.create(tenant=ruby, name="Other", city="Basel")
    inventory_list(ruby.pk, branch_id=mine.pk)
    inventory_list(ruby.pk, branch_id=other.pk)
    sent = typed(("tag", "branch:{branch_id}"), preview_tenant=str(ruby.pk), _preview="1")
    shown = admin_client.post(reverse(ADD), sent).context["preview"]
    assert [(line.group, line.entries, line.by) for line in shown.lines] == [("inventory_list", 1, "tag")]


def test_the_preview_names_groups_that_do_not_exist_and_tags_that_add_nothing(admin_client, shop):
    inventory_list(shop[0].pk)
    sent = typed(("group", "inventory_lst"), preview_tenant=str(shop[0].pk), _preview="1")
    shown = admin_client.post(reverse(ADD), sent).context["preview"]
    assert "The group inventory_lst does not exist. Did you mean inventory_list?" in {c.text for c in shown.checks}
    sent = typed(("tag", "nobody:{pk}"), preview_tenant=str(shop[0].pk), _preview="1")
    shown = admin_client.post(reverse(ADD), sent).context["preview"]
    assert "No function that is known here uses the tag nobody:{pk}." in {c.text for c in shown.checks}


def test_the_preview_of_a_wrong_rule_says_what_is_wrong(admin_client, shop):
    sent = typed(fields="quantiti", _preview="1")
    shown = admin_client.post(reverse(ADD), sent).context["preview"]
    assert shown.state == "unclear"
    assert "Did you mean quantity?" in shown.checks[0].text


def test_a_tenant_bound_user_previews_his_own_tenant_only(staff, shop):
    ruby, gold = shop
    inventory_list(ruby.pk)
    inventory_list(gold.pk)
    client = staff("view_keys", "view_invalidationrule", "add_invalidationrule", tenant=ruby)
    sent = typed(("group", "inventory_list", "", "all"), preview_tenant=str(gold.pk), _preview="1")
    answer = client.post(reverse(ADD), sent)
    assert (answer.context["tenant"], answer.context["preview"].entries) == (str(ruby.pk), 1)
    assert [tenant.label for tenant in answer.context["tenants"]] == ["Ruby"]


def test_without_the_permission_to_see_keys_there_is_no_preview(staff, shop):
    client = staff("view_invalidationrule", "add_invalidationrule")
    assert "preview" not in client.get(reverse(ADD)).context
    assert client.post(reverse(PREVIEW), typed()).status_code == 403


@pytest.mark.django_db
def test_the_rules_can_be_edited_while_redis_is_away(admin_client, monkeypatch):
    def away(*_args, **_options):
        raise CacheAway("gone")

    monkeypatch.setattr(rule_preview.browser, "blast", away)
    monkeypatch.setattr(rule_list.Reader, "run", away)
    answer = admin_client.get(reverse(LIST))
    assert not answer.context["knows_fired"]
    answer = admin_client.post(reverse(ADD), typed(_preview="1"))
    assert b"Cannot count now; the rule can be saved." in answer.content
    assert admin_client.post(reverse(ADD), typed()).status_code == 302


# --- who may, and what it costs -----------------------------------------------------------------------------------

PERMISSIONS = {
    "nobody": (),
    "viewer": ("view_invalidationrule",),
    "adder": ("add_invalidationrule", "view_invalidationrule"),
    "editor": ("change_invalidationrule",),
    "deleter": ("delete_invalidationrule", "view_invalidationrule"),
}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("nobody", "list 403, add 403, change 403, history 403, delete 403, save 403, switch 403"),
        ("viewer", "list 200, add 403, change 200, history 200, delete 403, save 403, switch 302"),
        ("adder", "list 200, add 200, change 200, history 200, delete 403, save 403, switch 302"),
        ("editor", "list 200, add 403, change 200, history 200, delete 403, save 302, switch 302"),
        ("deleter", "list 200, add 403, change 200, history 200, delete 200, save 403, switch 302"),
    ],
)
def test_permissions(staff, who, expected):
    made = make_rule()
    client = staff(*PERMISSIONS[who])
    delete = reverse("admin:cacheadmin_invalidationrule_delete", args=[made.pk])
    answers = {
        "list": client.get(reverse(LIST)),
        "add": client.get(reverse(ADD)),
        "change": client.get(reverse(CHANGE, args=[made.pk])),
        "history": client.get(reverse(HISTORY, args=[made.pk])),
        "delete": client.get(delete),
        "save": client.post(reverse(CHANGE, args=[made.pk]), typed(note="changed")),
        "switch": client.post(reverse(LIST), {"action": "switch_off", "_selected_action": [made.pk]}),
    }
    assert ", ".join(f"{name} {answer.status_code}" for name, answer in answers.items()) == expected
    rule = InvalidationRule.objects.get()
    assert (rule.note, rule.enabled) == (("changed", False) if who == "editor" else ("", True))


@pytest.mark.django_db
@pytest.mark.parametrize("view", [LIST, ADD, PREVIEW, CHOICES])
def test_visitors_are_sent_to_the_login(client, view):
    assert "/login/" in client.get(reverse(view))["Location"]


@pytest.mark.django_db
def test_nobody_edits_while_the_site_is_read_only(admin_client, settings):
    made = make_rule()
    settings.CACHEADMIN = {**settings.CACHEADMIN, "READ_ONLY": True}
    assert admin_client.get(reverse(LIST)).status_code == 200
    assert b"Off" not in re.sub(rb"<select.*?</select>", b"", admin_client.get(reverse(LIST)).content, flags=re.DOTALL)
    answer = admin_client.get(reverse(CHANGE, args=[made.pk]))
    assert b"_save" not in answer.content
    assert admin_client.post(reverse(CHANGE, args=[made.pk]), typed(note="x")).status_code == 403
    assert admin_client.post(reverse(ADD), typed(name="new")).status_code == 403
    admin_client.post(reverse(LIST), {"action": "switch_off", "_selected_action": [made.pk]})
    rule = InvalidationRule.objects.get()
    assert (rule.note, rule.enabled) == ("", True)


def test_pages_cost_a_bounded_number_of_queries_and_round_trips(admin_client, shop, round_trips):
    for i in range(40):
        make_rule(f"rule {i}", targets=["prefix:inventory", "tag:branch:{branch_id}"])
    inventory_list(shop[0].pk)
    testing.reset()
    pages = [reverse(LIST), reverse(ADD), reverse(CHANGE, args=[InvalidationRule.objects.first().pk])]
    for page in pages:
        admin_client.get(page)
        with CaptureQueriesContext(connection) as queries, round_trips() as sent:
            assert admin_client.get(page).status_code == 200
        assert len(queries) <= 12, page
        asked = [command for command in sent if command != "PING"]
        assert len(asked) <= 3 * 4 + 1, (page, asked)


def test_pages_hold_nothing_inline(admin_client, shop):
    made = make_rule(note="<script>alert(1)</script>", name="<b>bold</b>")
    admin_client.post(reverse(CHANGE, args=[made.pk]), typed(name="<b>bold</b>", note="<i>x</i>"))
    names = ["changelist", "add", "import", "export"]
    urls = [reverse(f"admin:cacheadmin_invalidationrule_{name}") for name in names]
    urls += [reverse(CHANGE, args=[made.pk]), reverse(HISTORY, args=[made.pk])]
    for url in urls:
        html = admin_client.get(url).content.decode()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html), url
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", html), url
        assert "<script>alert" not in html
        assert "<b>bold" not in html
        assert html.count("<h1") == 1 + html.count('<h1 id="site-name"'), url


@pytest.mark.django_db
def test_a_rule_in_code_that_cannot_be_a_row_is_only_shown(admin_client, monkeypatch):
    odd = Rule("odd <name>", model="shop.Sale", targets=["prefix:sales"], source="code:shop.cache_rules")
    monkeypatch.setattr(rule_list, "code_rules", lambda: (odd,))
    html = admin_client.get(reverse(LIST)).content.decode()
    assert "odd &lt;name&gt;" in html
    assert "override=odd+%3Cname%3E" in html


@pytest.mark.django_db
def test_deleting_a_rule_asks_and_says_what_is_in_force_then(admin_client):
    made, again = make_rule("stock"), make_rule("inventory")
    url = "admin:cacheadmin_invalidationrule_delete"
    html = admin_client.get(reverse(url, args=[made.pk])).content.decode()
    assert "Delete the rule stock?" in html
    assert "drop nothing by it" in html
    assert 'aria-label="Cache"' in html
    html = admin_client.get(reverse(url, args=[again.pk])).content.decode()
    assert "The rule of the same name in shop.cache_rules is in force again." in html
    admin_client.post(reverse(url, args=[made.pk]), {"post": "yes"})
    assert [rule.name for rule in InvalidationRule.objects.all()] == ["inventory"]


@pytest.mark.django_db
def test_the_preview_answers_json_to_a_post_only(admin_client):
    assert admin_client.get(reverse(PREVIEW)).status_code == 403
    answer = admin_client.post(reverse(PREVIEW), {})
    assert "Choose a model" in json.loads(answer.content)["html"]
