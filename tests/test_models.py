"""The tables: what they hold, and that the migrations make them."""

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.core import serializers
from django.core.management import call_command
from django.db import IntegrityError

from cacheadmin.models import Activity, Console, Intent, InvalidationRule


@pytest.mark.django_db
class TestModels:
    def test_the_migration_is_up_to_date(self):
        call_command("makemigrations", "cacheadmin", check=True, dry_run=True, verbosity=0)

    def test_permissions_are_the_consoles_and_the_rules(self):
        found = Permission.objects.filter(content_type__app_label="cacheadmin")
        assert set(found.values_list("content_type__model", "codename")) == {
            *(
                ("console", name)
                for name in ("view_keys", "view_values", "invalidate", "warm", "clear_alias", "see_all_tenants")
            ),
            *(("invalidationrule", f"{verb}_invalidationrule") for verb in ("add", "change", "delete", "view")),
            ("invalidationrule", "import_rules"),
        }

    def test_the_console_has_no_table_and_a_readable_name(self):
        assert not Console._meta.managed
        assert str(Console._meta.verbose_name_plural) == "cache console"
        assert apps.get_app_config("cacheadmin").verbose_name == "Cache"

    def test_a_rule_is_known_by_its_name(self):
        rule = InvalidationRule.objects.create(name="items", model="shop.InventoryItem", targets=["items"])
        assert InvalidationRule.objects.get_by_natural_key("items") == rule
        assert (rule.natural_key(), str(rule)) == (("items",), "items")
        assert (rule.events, rule.fields, rule.enabled) == (["create", "update", "delete"], [], True)
        with pytest.raises(IntegrityError):
            InvalidationRule.objects.create(name="items", model="shop.Sale")

    def test_rules_travel_between_databases_by_name(self):
        InvalidationRule.objects.create(name="items", model="shop.InventoryItem", targets=["items"])
        text = serializers.serialize("json", InvalidationRule.objects.all(), use_natural_primary_keys=True)
        InvalidationRule.objects.update(note="older")
        for loaded in serializers.deserialize("json", text):
            loaded.save()
        assert InvalidationRule.objects.get().note == ""

    def test_rules_are_listed_by_name(self):
        for name in "bca":
            InvalidationRule.objects.create(name=name, model="shop.Sale")
        assert [rule.name for rule in InvalidationRule.objects.all()] == ["a", "b", "c"]

    def test_activity_of_a_deleted_user_stays(self, django_user_model):
        user = django_user_model.objects.create(username="amira")
        done = Activity.objects.create(kind="invalidate", source="user", who="amira", user=user, what="tenant 7")
        user.delete()
        done.refresh_from_db()
        assert (done.user, done.who, str(done)) == (None, "amira", "invalidate tenant 7")

    def test_activity_comes_newest_first(self):
        made = [Activity.objects.create(kind="warm", source="command") for _ in range(3)]
        assert list(Activity.objects.all()) == made[::-1]

    @pytest.mark.parametrize("tenant", ["1", "12", 'a"b', "ü", "*x", "a,b", "100%", "_", "a\\b"])
    def test_activity_is_found_by_tenant_exactly(self, tenant):
        others = ["2", "112", "b", "u", "x", "a", "100", "a_b"]
        mine = Activity.objects.create(kind="invalidate", source="rule", tenants=["0", tenant])
        everyone = Activity.objects.create(kind="invalidate", source="rule", tenants="*")
        for other in others:
            Activity.objects.create(kind="invalidate", source="rule", tenants=[other])
        Activity.objects.create(kind="invalidate", source="rule", tenants=[])
        assert set(Activity.objects.for_tenants([tenant])) == {mine, everyone}

    def test_an_intent_begins_as_pending(self):
        intent = Intent.objects.create(due="2026-11-22T00:00Z", payload={"targets": []})
        assert (intent.state, intent.attempts, intent.delivered_to) == ("pending", 0, {})
        assert str(intent) == f"{intent.pk} pending"
