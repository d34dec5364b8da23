"""Names and tenants may hold any character; what a database refuses in a text is written another way."""

import json

import pytest
from django.db import connection, transaction
from hypothesis import example, given
from hypothesis import strategies as st

from cacheadmin import Target, cache_tenant_query, invalidate_tags, invalidate_tenant_cache
from cacheadmin.models import Intent
from cacheadmin.outbox import Delivery, rows
from cacheadmin.outbox.texts import restored, storable
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
