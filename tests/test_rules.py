"""The map: how rules are written, checked, found, kept fresh, and what they drop."""

import sys
import threading
import types

import pytest
from django.contrib.auth.models import Group
from django.db import connection, models, transaction
from django.test.utils import isolate_apps

from cacheadmin import ALL, Rule, RuleTarget, Target, rules
from cacheadmin.exceptions import InvalidRule
from cacheadmin.models import InvalidationRule, RuleVersion
from cacheadmin.rules import Change, targets_for, validate
from cacheadmin.rules.paths import tenant_path
from cacheadmin.rules.snapshot import build
from cacheadmin.tenancy import ForeignKeyTenancy, NoTenants, SchemaTenancy, Tenancy
from cacheadmin.testing import captured_invalidations
from shop.models import Branch, Category, GoldRate, InventoryItem, Sale, SaleLine, User
from shop.models import Tenant as ShopTenant


def rule(**values):
    return Rule(**({"name": "items", "model": "shop.InventoryItem", "targets": ["items"]} | values))


def change(event="update", fields=None, rows=({"tenant_id": 1, "branch_id": 5},), model="shop.InventoryItem"):
    return Change(model, event, None if fields is None else frozenset(fields), rows)


def dropped(*given, changes):
    return {fired.name: list(fired.targets) for fired in targets_for(changes, build(given, (), None))}


class TestWriting:
    def test_a_target_has_a_short_form(self):
        written = ["inventory", "group:dashboard", "prefix:report", "tag:branch:{branch_id}", "tenant", "report:sales"]
        assert rule(targets=written).targets == (
            RuleTarget("group", "inventory"),
            RuleTarget("group", "dashboard"),
            RuleTarget("prefix", "report"),
            RuleTarget("tag", "branch:{branch_id}"),
            RuleTarget("tenant"),
            RuleTarget("group", "report:sales"),
        )

    def test_a_target_survives_json(self):
        target = RuleTarget("tag", "branch:{branch_id}", "query", "all")
        assert RuleTarget.parse(target.to_json()) == target
        assert RuleTarget.parse({"kind": "group", "name": "g"}) == RuleTarget("group", "g")

    @pytest.mark.parametrize("wrong", [5, None, {"kind": "group", "nam": "x"}, {"kind": 5}, ["group", "x"]])
    def test_what_is_no_target_is_refused(self, wrong):
        with pytest.raises(InvalidRule, match="is no target"):
            RuleTarget.parse(wrong)

    def test_lists_become_tuples_so_that_a_rule_can_be_compared(self):
        assert rule(events=["create"], fields=["price"]) == rule(events=("create",), fields=("price",))
        assert hash(rule()) == hash(rule())

    @pytest.mark.parametrize("wrong", [{"name": ""}, {"events": 5}, {"fields": [1]}, {"model": None}, {"targets": 3}])
    def test_values_of_a_wrong_type_are_refused(self, wrong):
        with pytest.raises(InvalidRule):
            rule(**wrong)


class TestValidation:
    def problems(self, **values):
        return [(p.field, p.message) for p in validate(rule(**values))]

    def test_a_good_rule_has_no_problems(self):
        good = rule(
            events=["create", "update", "m2m"],
            fields=["price", "branch_id", "tags"],
            tenant="tenant_id",
            targets=["prefix:inventory", "tag:at:{branch__city}", RuleTarget("key", "item:{pk}", "query", "shared")],
        )
        assert validate(good) == []

    @pytest.mark.parametrize(
        ("values", "field", "message"),
        [
            ({"model": "shop.InventoryItm"}, "model", "Did you mean shop.InventoryItem?"),
            ({"model": "InventoryItm"}, "model", "Did you mean shop.InventoryItem?"),
            ({"model": "zzz"}, "model", "There is no model 'zzz'. Write app_label.Model."),
            ({"events": ["updat"]}, "events", "'updat' is no event. Did you mean update?"),
            ({"events": ["zzz"]}, "events", "'zzz' is no event. Allowed are create, update, delete, m2m."),
            ({"events": []}, "events", "never fires"),
            ({"fields": ["qty"]}, "fields", "Field shop.InventoryItem.qty does not exist."),
            ({"fields": ["quantit"]}, "fields", "Did you mean quantity?"),
            ({"fields": ["tags"]}, "fields", "add the event m2m"),
            ({"tenant": "tenat_id"}, "tenant", "Did you mean tenant_id?"),
            ({"tenant": "sku__x"}, "tenant", "is no foreign key"),
            ({"tenant": "tags__tenant_id"}, "tenant", "leads to many rows"),
            ({"tenant": "branch__tenan"}, "tenant", "field shop.Branch.tenan does not exist. Did you mean tenant?"),
            ({"targets": []}, "targets", "drops nothing"),
            ({"targets": [RuleTarget("grup", "x")]}, "targets", "'grup' is no kind of target. Did you mean group?"),
            ({"targets": [RuleTarget("group", "x", tenant="each")]}, "targets", "Allowed are same, all, shared."),
            ({"targets": [RuleTarget("group", "x", "quary")]}, "targets", "Did you mean query?"),
            ({"targets": [RuleTarget("group", "")]}, "targets", "needs a name"),
            ({"targets": [RuleTarget("tenant", "x")]}, "targets", "has no name"),
            ({"targets": ["tag:branch:{brnch_id}"]}, "targets", "Did you mean branch_id?"),
            ({"targets": ["tag:branch:{branch.id}"]}, "targets", "a placeholder is a field path in braces"),
            ({"targets": ["group:b:{branch_id}"]}, "targets", "placeholders are for tags and keys"),
            ({"targets": ["key:tenant:5:x"]}, "targets", "does not begin with 'tenant:'"),
            ({"targets": ["pattern:" + "x" * 300 + "*"]}, "targets", "at most 200"),
        ],
    )
    def test_a_problem_names_value_and_remedy(self, values, field, message):
        [(found, text)] = self.problems(**values)
        assert (found, message in text) == (field, True), text

    def test_a_name_that_is_taken_is_a_problem(self):
        assert [p.field for p in validate(rule(), taken=["items"])] == ["name"]
        assert [p.field for p in validate(rule(name="x" * 100))] == []
        assert "201 characters; at most 100" in validate(rule(name="x" * 201))[0].message

    def test_the_shops_own_rules_are_all_right(self):
        rules.forget_all()
        assert [p for _, p in rules.problems(stored=False)] == []


class TestTenantPath:
    @pytest.mark.parametrize(
        ("model", "path"),
        [
            (InventoryItem, "tenant_id"),
            (ShopTenant, "pk"),
            (User, "tenant_id"),
            (GoldRate, "-"),
            (SaleLine, "*"),
        ],
    )
    def test_it_is_found_by_itself_or_widened(self, model, path):
        assert tenant_path(model, "") == path

    def test_what_is_given_stays(self):
        assert tenant_path(SaleLine, "sale__tenant_id") == "sale__tenant_id"

    @isolate_apps("shop")
    def test_a_key_that_holds_another_column_of_the_tenant_is_followed_to_his_id(self, monkeypatch):
        class Paper(models.Model):  # noqa: DJ008 - nobody sees it
            owner = models.ForeignKey(ShopTenant, models.CASCADE, to_field="slug", related_name="+")

            class Meta:
                app_label = "shop"

        class Page(models.Model):  # noqa: DJ008 - nobody sees it
            paper = models.ForeignKey(Paper, models.CASCADE)

            class Meta:
                app_label = "shop"

        class Owners(ForeignKeyTenancy):
            model = "shop.Tenant"
            field = "owner"

        class BySlug(Owners):
            def from_row(self, row):
                return row.slug

        monkeypatch.setattr("cacheadmin.rules.paths.tenancy", Owners)
        assert [tenant_path(Paper, path) for path in ("", "owner_id", "owner")] == ["owner__pk"] * 3
        assert tenant_path(Page, "paper__owner_id") == "paper__owner__pk"
        assert tenant_path(Page, "paper__owner__slug") == "paper__owner__slug"
        monkeypatch.setattr("cacheadmin.rules.paths.tenancy", BySlug)
        assert (tenant_path(Paper, ""), tenant_path(Page, "paper__owner_id")) == ("owner_id", "paper__owner_id")

    @pytest.mark.parametrize(
        ("ours", "path"), [(NoTenants(), "-"), (SchemaTenancy(), "@active"), (Tenancy(), "tenant_id")]
    )
    def test_it_depends_on_the_tenancy(self, monkeypatch, ours, path):
        monkeypatch.setattr("cacheadmin.rules.paths.tenancy", lambda: ours)
        assert tenant_path(InventoryItem, "") == path

    @pytest.mark.parametrize(
        "lists",
        [
            {"SHARED_APPS": ["shop.apps.ShopConfig", "django.contrib.auth"], "TENANT_APPS": ["django.contrib.auth"]},
            {"TENANT_TYPES": {"public": {"APPS": ["shop"]}, "one": {"APPS": ["django.contrib.auth"]}}},
        ],
    )
    def test_a_table_of_all_schemas_is_every_tenants(self, monkeypatch, settings, lists):
        monkeypatch.setattr("cacheadmin.rules.paths.tenancy", SchemaTenancy)
        for name, value in lists.items():
            setattr(settings, name, value)
        assert (tenant_path(InventoryItem, ""), tenant_path(Group, "")) == ("*", "@active")

    def test_a_tenancy_that_reads_rows_its_own_way_widens(self, monkeypatch):
        class Own(Tenancy):
            def from_instance(self, instance):
                return [str(instance.region)]

        monkeypatch.setattr("cacheadmin.rules.paths.tenancy", Own)
        assert tenant_path(GoldRate, "") == "*"


class TestMatching:
    def test_nothing_is_dropped_for_other_models_events_or_fields(self):
        given = rule(events=["update"], fields=["price"])
        assert dropped(given, changes=[change(model="shop.Branch")]) == {}
        assert dropped(given, changes=[change("delete")]) == {}
        assert dropped(given, changes=[change(fields=["name"])]) == {}
        assert dropped(given, changes=[change(fields=["price", "name"])]) == {"items": [Target("group", "items", "1")]}
        assert dropped(given, changes=[change(fields=None)]) == {"items": [Target("group", "items", "1")]}

    def test_each_kind_of_target(self):
        given = rule(
            targets=[
                "group:g",
                "prefix:p",
                "fragment:f",
                "tag:branch:{branch_id}",
                "key:item:{branch_id}",
                "tenant",
                RuleTarget("group", "a", "query", "all"),
                RuleTarget("group", "s", tenant="shared"),
            ]
        )
        assert dropped(given, changes=[change()])["items"] == [
            Target("group", "g", "1"),
            Target("prefix", "p", "1"),
            Target("group", "f", "1"),
            Target("tag", "branch:5", "1"),
            Target("key", "item:5", "1"),
            Target("tenant", "", "1"),
            Target("group", "a", ALL, "query"),
            Target("group", "s", None),
        ]

    @pytest.mark.parametrize(
        ("pattern", "targets"),
        [
            ("*", [Target("tenant", "", "1")]),
            ("inventory:*", [Target("group", "inventory", "1"), Target("prefix", "inventory:", "1")]),
            ("inventory*", [Target("prefix", "inventory", "1")]),
            ("inventory:5*", [Target("group", "inventory", "1"), Target("prefix", "inventory:5", "1")]),
            ("inventory:list", [Target("key", "inventory:list", "1")]),
            ("*list*", [Target("tenant", "", "1")]),
            ("t?x", [Target("tenant", "", "1")]),
            ("tenant:7:*", [Target("tenant", "", "7")]),
            ("tenant:*:inventory*", [Target("prefix", "inventory", ALL)]),
            ("tenant:*", [Target("tenant", "", "1")]),
            ("ten*", [Target("tenant", "", "1")]),
        ],
    )
    def test_a_pattern_becomes_the_groups_its_matches_are_in(self, pattern, targets):
        assert dropped(rule(targets=[RuleTarget("pattern", pattern)]), changes=[change()])["items"] == targets

    def test_both_sides_of_a_move(self):
        rows = ({"tenant_id": 1, "branch_id": 5}, {"tenant_id": 2, "branch_id": 6})
        assert dropped(rule(targets=["items", "tag:b:{branch_id}"]), changes=[change(rows=rows)])["items"] == [
            Target("group", "items", "1"),
            Target("group", "items", "2"),
            Target("tag", "b:5", "1"),
            Target("tag", "b:6", "2"),
        ]

    def test_what_is_not_known_widens(self):
        given = rule(targets=["items", "tag:b:{branch_id}"])
        everywhere = [Target("group", "items", ALL), Target("tenant", "", ALL)]
        assert dropped(given, changes=[change(rows=None)])["items"] == everywhere
        assert dropped(given, changes=[change(rows=({"branch_id": 5},))])["items"] == [
            Target("group", "items", ALL),
            Target("tag", "b:5", ALL),
        ]
        assert dropped(given, changes=[change(rows=({"tenant_id": 1},))])["items"] == [
            Target("group", "items", "1"),
            Target("tenant", "", "1"),
        ]

    def test_a_row_without_a_tenant_is_shared_data(self):
        rows = ({"tenant_id": None, "branch_id": 5},)
        assert dropped(rule(), changes=[change(rows=rows)])["items"] == [Target("group", "items", None)]

    def test_all_tenants_is_one_target_however_many_rows(self):
        rows = tuple({"tenant_id": n} for n in range(100))
        given = rule(targets=[RuleTarget("group", "items", tenant="all")])
        assert dropped(given, changes=[change(rows=rows)])["items"] == [Target("group", "items", ALL)]
        assert dropped(rule(tenant="*"), changes=[change(rows=rows)])["items"] == [Target("group", "items", ALL)]
        assert dropped(rule(tenant="-"), changes=[change(rows=rows)])["items"] == [Target("group", "items", None)]

    def test_very_many_targets_widen(self):
        tags = rule(targets=["tag:b:{branch_id}"])
        rows = tuple({"tenant_id": n % 2, "branch_id": n} for n in range(600))
        assert dropped(tags, changes=[change(rows=rows)])["items"] == [
            Target("tenant", "", "0"),
            Target("tenant", "", "1"),
        ]
        rows = tuple({"tenant_id": n, "branch_id": n} for n in range(600))
        assert dropped(tags, changes=[change(rows=rows)])["items"] == [Target("tenant", "", ALL)]

    def test_a_relation_narrows_only_relations(self):
        given = rule(events=["update", "m2m"], fields=["tags"])
        assert dropped(given, changes=[change("m2m", ["tags"])])
        assert not dropped(given, changes=[change("m2m", ["sales"])])
        both = rule(events=["update", "m2m"], fields=["price"])
        assert dropped(both, changes=[change("m2m", ["tags"])])
        assert not dropped(both, changes=[change(fields=["name"])])

    def test_rules_keep_their_order_and_are_named(self):
        given = [rule(name=n, warm=n == "b") for n in "bca"]
        fired = targets_for([change()], build(given, (), None))
        assert [(f.name, f.warm) for f in fired] == [("b", True), ("c", False), ("a", False)]


class TestBrokenRules:
    """What is broken in part fires too widely rather than not at all."""

    def test_a_field_that_does_not_exist_watches_all(self):
        assert dropped(rule(fields=["qty"]), changes=[change(fields=["name"])])

    def test_a_tenant_path_that_does_not_exist_means_all(self, caplog):
        assert dropped(rule(tenant="tenat"), changes=[change()])["items"] == [Target("group", "items", ALL)]
        assert "tenat" in caplog.text

    def test_a_placeholder_that_does_not_exist_means_the_tenant(self):
        assert dropped(rule(targets=["tag:{brnch}"]), changes=[change()])["items"] == [Target("tenant", "", "1")]

    def test_a_model_that_does_not_exist_is_logged(self, caplog):
        assert dropped(rule(model="shop.Nothing"), changes=[change()]) == {}
        assert "never fires" in caplog.text

    def test_a_row_damaged_by_hand_drops_everything(self):
        row = {"name": "r", "model": "shop.InventoryItem", "events": "zzz", "fields": None, "targets": {"a": 1}}
        found = rules.from_row(row)
        assert found.targets == (RuleTarget("tenant"),)
        assert found.events == rules.EVENTS
        assert found.fields == ()


class TestCodeRules:
    def test_every_apps_rules_are_found_and_say_where_they_are_from(self):
        rules.forget_all()
        sources = {found.source for found in rules.code_rules()}
        assert sources == {"code:shop.cache_rules"}

    @pytest.mark.parametrize(
        ("module", "message"),
        [
            ("raise RuntimeError('on purpose')", "cannot be imported: RuntimeError: on purpose"),
            ("", "must have a list `rules`"),
            ("rules = [5]", "must have a list `rules`"),
        ],
    )
    def test_a_module_that_is_broken_is_named(self, monkeypatch, module, message, tmp_path):
        (tmp_path / "broken_rules.py").write_text(module)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "broken_rules", raising=False)
        with pytest.raises(InvalidRule, match=message):
            rules.current._rules_of("broken_rules")


@pytest.mark.django_db(transaction=True)
class TestDatabaseRules:
    def stored(self, **values):
        return InvalidationRule.objects.create(
            **({"name": "stored", "model": "shop.Branch", "targets": ["prefix:branch"]} | values)
        )

    def names(self):
        return [found.name for found in rules.for_model("shop.Branch")]

    def test_an_edit_is_in_force_at_once_in_this_process(self, use_rules):
        use_rules()
        assert self.names() == []
        made = self.stored()
        assert self.names() == ["stored"]
        InvalidationRule.objects.update(enabled=False)
        assert self.names() == []
        InvalidationRule.objects.bulk_create([InvalidationRule(name="b", model="shop.branch", targets=["x"])])
        assert self.names() == ["b"]
        made.delete()
        InvalidationRule.objects.all()._raw_delete("default")
        assert self.names() == []
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO cacheadmin_invalidationrule "
                "(name, model, events, fields, tenant, targets, warm, enabled, note) "
                """VALUES ('raw', 'shop.Branch', '["update"]', '[]', '', '["x"]', %s, %s, '')""",
                [False, True],
            )
        assert self.names() == ["raw"]

    def test_an_edit_waits_for_its_commit(self, use_rules):
        use_rules()
        rules.snapshot()
        with transaction.atomic():
            self.stored()
            assert self.names() == []
        assert self.names() == ["stored"]
        with transaction.atomic():
            InvalidationRule.objects.all().delete()
            transaction.set_rollback(True)
        assert self.names() == ["stored"]

    def test_other_processes_see_the_version_within_a_second(self, use_rules, monkeypatch):
        use_rules()
        clock = [1000.0]
        monkeypatch.setattr("cacheadmin.rules.current.time.monotonic", lambda: clock[0])
        rules.forget()
        assert self.names() == []
        before = rules.snapshot()
        self.stored()
        rules.current._current = before  # what another process knows
        rules.current._looked_at = clock[0]
        assert self.names() == []
        clock[0] += 1.01
        assert self.names() == ["stored"]

    def test_a_look_is_one_statement_a_second_and_not_counted(self, use_rules, django_assert_num_queries):
        use_rules()
        with django_assert_num_queries(0):
            rules.forget()
            self.names()

    def test_the_version_counts_every_edit(self, use_rules):
        use_rules()
        self.stored()
        before = RuleVersion.objects.get().version
        self.stored(name="second")
        InvalidationRule.objects.update(note="x")
        assert RuleVersion.objects.get().version == before + 2

    def test_a_rule_of_the_same_name_replaces_one_in_code(self, use_rules):
        use_rules(Rule("branches", model="shop.Branch", targets=["old"]))
        assert rules.for_model(Branch)[0].targets == (RuleTarget("group", "old"),)
        self.stored(name="branches", targets=["new"])
        assert [r.targets for r in rules.for_model(Branch)] == [(RuleTarget("group", "new"),)]
        assert [r.source for r in rules.all_rules()] == ["database"]
        assert [r.name for r in rules.snapshot().replaced] == ["branches"]

    def test_a_disabled_one_switches_the_one_in_code_off(self, use_rules):
        use_rules(Rule("branches", model="shop.Branch", targets=["old"]))
        self.stored(name="branches", enabled=False)
        assert self.names() == []

    def test_a_new_rule_drops_at_once_what_it_would_have_dropped_before(self, use_rules):
        use_rules()
        with captured_invalidations() as captured:
            self.stored(targets=["prefix:branch", "tag:b:{pk}"])
            InvalidationRule.objects.update(note="no other targets")
            InvalidationRule.objects.update(enabled=False)
        assert [set(i.targets) for i in captured] == [{Target("prefix", "branch", ALL), Target("tenant", "", ALL)}] * 2
        assert {i.name for i in captured} == {"stored"}

    def test_threads_share_one_look(self, use_rules):
        use_rules()
        found = []
        threads = [threading.Thread(target=lambda: found.append(rules.snapshot())) for _ in range(2)]
        rules.snapshot()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found[0] is found[1] is rules.snapshot()


def test_without_a_database_the_rules_in_code_are_in_force(use_rules):
    """pytest-django forbids the database here; an explicit invalidation must work all the same."""
    use_rules(rule())
    assert [r.name for r in rules.for_model("InventoryItem")] == ["items"]


@pytest.mark.django_db
class TestModelTargets:
    def test_all_that_the_rules_can_drop_and_groups_named_after_the_model(self, use_rules):
        use_rules(
            rule(targets=["items", "tag:b:{branch_id}", RuleTarget("group", "prices", tenant="all")]),
            rule(name="off", enabled=False, targets=["nothing"]),
        )
        assert rules.model_targets("inventoryitem", 7) == [
            Target("group", "items", "7"),
            Target("tenant", "", "7"),
            Target("group", "prices", ALL),
            Target("prefix", "inventoryitem", "7"),
        ]

    def test_rules_for_shared_data_stay_shared(self, use_rules):
        use_rules(Rule("rates", model="shop.GoldRate", targets=["gold_rate", RuleTarget("group", "x", tenant="all")]))
        assert rules.model_targets(GoldRate, "7") == [
            Target("group", "gold_rate", None),
            Target("group", "x", ALL),
            Target("prefix", "goldrate", "7"),
        ]

    def test_without_a_tenant_all_are_meant(self, use_rules):
        use_rules()
        assert rules.model_targets(Category) == [Target("prefix", "category", ALL)]
        assert rules.model_targets("shop.Category", None) == [Target("prefix", "category", None)]

    def test_a_name_that_is_not_clear_is_refused_with_candidates(self):
        with pytest.raises(InvalidRule, match=r"Did you mean shop\.Sale"):
            rules.model_targets("Sal", 1)
        with pytest.raises(InvalidRule, match=r"Write app_label\.Model"):
            rules.model_targets("qqqqq", 1)

    def test_a_name_of_two_apps_is_refused(self, monkeypatch):
        twin = types.SimpleNamespace(_meta=types.SimpleNamespace(label="other.Sale"))
        monkeypatch.setattr("cacheadmin.rules.validation.apps.get_models", lambda **_: [Sale, twin])
        with pytest.raises(InvalidRule, match=r"several models 'Sale': other\.Sale, shop\.Sale"):
            rules.find_model("Sale")
        assert rules.find_model("shop.Sale") is Sale

    def test_what_is_wanted_of_a_row_is_watched_too(self, use_rules):
        use_rules(rule(fields=["price"], targets=["tag:b:{branch_id}"]))
        assert rules.snapshot().paths == {"shop.InventoryItem": ("branch_id", "tenant_id")}
        [compiled] = rules.snapshot().compiled["shop.InventoryItem"]
        assert compiled.fields == {"price", "branch", "branch_id", "tenant", "tenant_id"}
