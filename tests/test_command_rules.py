"""`manage.py cache_rules`."""

import json

import pytest
from django.core.management import CommandError, call_command

from cacheadmin import rules
from cacheadmin.models import InvalidationRule

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(capsys):
    """Run the command and return what it printed."""
    rules.forget()

    def run(*args):
        rules.forget()
        call_command("cache_rules", *args)
        return capsys.readouterr().out

    yield run
    rules.forget()


@pytest.fixture
def wrong():
    """A rule that names what does not exist."""
    return InvalidationRule.objects.create(
        name="wrong", model="shop.InventoryItem", fields=["qty"], targets=[{"kind": "group", "name": "x"}]
    )


def test_lists_rules_of_code_and_of_the_database(run):
    InvalidationRule.objects.create(
        name="stock",
        model="shop.InventoryItem",
        events=["update"],
        fields=["quantity"],
        targets=[{"kind": "prefix", "name": "inventory"}],
        warm=True,
    )
    out = run()
    assert (
        "stock (database)\n"
        "    when    shop.InventoryItem: update, if one of these fields: quantity\n"
        "    tenant  the row's own\n"
        "    drops   prefix:inventory, then warms\n"
    ) in out
    assert "sales (code:shop.cache_rules)\n" in out


def test_a_rule_that_is_switched_off_says_so(run):
    InvalidationRule.objects.create(
        name="sales", model="shop.Sale", targets=[{"kind": "tenant", "name": ""}], enabled=False
    )
    assert "sales (database), switched off\n" in run()


def test_as_json_with_the_fields_of_a_rule(run):
    by_name = {rule["name"]: rule for rule in json.loads(run("--format", "json"))}
    assert by_name["sales"]["model"] == "shop.Sale"
    assert by_name["sales"]["source"] == "code:shop.cache_rules"
    assert {"kind": "prefix", "name": "sales", "alias": "query", "tenant": "same"} in by_name["sales"]["targets"]


def test_only_those_of_a_model(run):
    models = {rule["model"] for rule in json.loads(run("--model", "shop.Sale", "--format", "json"))}
    assert models == {"shop.Sale"}


def test_a_model_without_rules_is_said_in_a_sentence(run):
    assert run("--model", "auth.Group").startswith("No rules for auth.Group.")


def test_an_unknown_model_is_an_error_with_the_nearest(run):
    with pytest.raises(CommandError, match=r"There is no model 'shop\.Sal'\. Did you mean shop\.Sale"):
        run("--model", "shop.Sal")


class TestCheck:
    def test_all_is_well(self, run):
        assert run("--check").endswith("rules, nothing wrong.\n")

    def test_what_is_wrong_is_named_and_the_exit_code(self, run, wrong, capsys):
        with pytest.raises(CommandError, match="1 problem in ") as raised:
            run("--check")
        assert raised.value.returncode == 1
        assert "wrong (database), fields: Field shop.InventoryItem.qty does not exist" in capsys.readouterr().err

    def test_as_json(self, run, wrong, capsys):
        with pytest.raises(CommandError):
            run("--check", "--format", "json")
        [problem] = json.loads(capsys.readouterr().out)["problems"]
        assert (problem["rule"], problem["source"], problem["field"]) == ("wrong", "database", "fields")
