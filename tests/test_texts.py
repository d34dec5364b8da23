"""Names and tenants may hold any character; what a database refuses in a text is written another way."""

import json

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from hypothesis import example, given
from hypothesis import strategies as st

from cacheadmin import Target, cache_tenant_query, invalidate_tags, invalidate_tenant_cache
from cacheadmin.models import Activity, Intent
from cacheadmin.outbox import Delivery, rows
from cacheadmin.texts import WHOLE, escaped, restored, storable
from shop.models import Tenant

ANY_TEXT = st.text(st.characters(codec=None, categories=None) | st.sampled_from("\0\\\ud83d\ude00u0"), min_size=1)


@given(name=ANY_TEXT, tenant=ANY_TEXT, rule=ANY_TEXT)
@example("a\0b", "\ud800", "\\0000")
@example("\ud83d\ude00", "\\", "\\005c\0")
def test_a_delivery_with_any_text_comes_back_as_it_was(name, tenant, rule):
    given_one = Delivery((Target("tag", name, tenant, "query"),), (rule,), "code", name, (rule,))
    stored = json.dumps(storable(given_one.to_json()))
    assert restored(stored) == given_one.to_json()
    assert rows.read(stored) == given_one
    assert rows.read(json.loads(stored)) == given_one
    plain = json.loads(stored)
    told = json.dumps(plain, ensure_ascii=False)
    assert "\\u0000" not in told.replace("\\\\", "")
    told.encode()  # a half of a pair would raise


def test_a_delivery_without_such_a_character_is_stored_as_it_is():
    plain = Delivery((Target("tag", "a\\0000b", "7"),)).to_json()
    assert storable(plain) is plain
    assert restored(json.dumps(plain)) == plain


@given(data=st.recursive(ANY_TEXT | st.integers(), lambda some: st.lists(some) | st.dictionaries(st.just(WHOLE), some)))
@example({WHOLE: "\\005c"})
@example([{WHOLE: "\0"}])
def test_any_data_comes_back_as_it_was(data):
    stored = json.dumps(storable(data), ensure_ascii=False)
    stored.encode()
    assert restored(stored) == data


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("odd", ["a\0b", "\ud800", "\ud83d\ude00", "x\udfffy\\"])
@pytest.mark.parametrize("of", ["tag", "tenant"])
def test_an_odd_name_fails_no_transaction_and_is_invalidated(odd, of, monkeypatch):
    asked = []

    @cache_tenant_query(timeout=60, key_prefix="odd", tags=[odd])
    def computed(tenant_id):
        asked.append(tenant_id)
        return len(asked)

    tenant = odd if of == "tenant" else "2"
    computed(tenant)
    monkeypatch.setattr(rows, "mark_done", lambda *_: None)
    with transaction.atomic():
        Tenant.objects.create(name="a", slug="a")
        invalidate_tags(2, odd) if of == "tag" else invalidate_tenant_cache(odd)
    assert Tenant.objects.filter(slug="a").exists()
    assert computed(tenant) == 2
    [payload] = rows.unseen(connection, with_done=False)
    assert {(target.name, target.tenant) for target in rows.read(payload).targets} >= {
        (odd, "2") if of == "tag" else ("", odd)
    }
    assert Intent.objects.count() == 1


ODD = ["a\0b", "\ud800", "\ud83d\ude00", "x\udfffy\\", "\udcff"]


@pytest.mark.django_db
@pytest.mark.parametrize("odd", ODD)
def test_activity_keeps_any_name(odd):
    target = Target("tag", odd, odd)
    row = Activity.objects.create(
        kind="invalidate", source="command", tenants=[odd], targets=[target.to_json()], what=odd, reason=odd, who=odd
    )
    Activity.objects.filter(pk=row.pk).update(targets=[target.to_json()] * 2, error=f"{odd} failed")
    row.refresh_from_db()
    assert row.tenants == [odd]
    assert [Target.from_json(data) for data in row.targets] == [target] * 2
    for text in (row.what, row.reason, row.who, row.error.removesuffix(" failed")):
        assert text == odd.replace("\0", "\\x00").encode("ascii", "backslashreplace").decode()


@pytest.mark.django_db
@pytest.mark.parametrize("odd", ODD)
def test_activity_with_an_odd_tenant_is_found_by_it_alone(odd):
    row, everyone, plain, twin, shared = (
        Activity.objects.create(kind="warm", source="user", tenants=tenants)
        for tenants in ([odd, "back\\slash"], "*", ["back\\slash", "7"], [escaped(odd), WHOLE, "escaped"], [])
    )
    find = Activity.objects.for_tenants
    assert set(find([odd])) == {row, everyone}
    assert set(find([escaped(odd)])) == {twin, everyone}
    assert set(find(["back\\slash"])) == {row, plain, everyone}
    assert set(find(["escaped", "7"])) == {twin, plain, everyone}
    assert set(find([WHOLE])) == {twin, everyone}
    assert shared in Activity.objects.all()


@pytest.mark.django_db
def test_a_long_line_is_cut_after_it_was_spelled_out():
    row = Activity.objects.create(kind="warm", source="user", what="\0" * 300)
    row.refresh_from_db()
    assert row.what == "\\x00" * 75


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("odd", ODD)
def test_a_command_notes_any_name_that_is_typed(odd, capsys):
    call_command("cache_invalidate", tag=[odd], tenant=[odd], interactive=False)
    [row] = Activity.objects.all()
    assert "not noted" not in capsys.readouterr().err
    assert row.tenants == [odd]
    assert {(target["name"], *target["tenant"]) for target in row.targets} == {(odd, odd)}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("odd", ODD)
def test_the_relay_notes_any_error(odd):
    row = rows.insert(connection, Delivery((Target("tag", "a", "7"),)))
    assert rows.change(connection, [row], {"error": f"no alias {odd}"}) == 1
    assert Intent.objects.get().error.startswith("no alias ")
