"""Names never meet, whatever their parts hold, and lead back to the parts they were made of."""

from __future__ import annotations

import datetime as dt
import enum
import os
import unicodedata
import uuid
from decimal import Decimal
from types import SimpleNamespace

import pytest
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from cacheadmin import get_cache_key, get_tenant_cache_key
from cacheadmin.encoding import MEMBER_BYTES, NAME_BYTES, canonical, escape, fingerprint, name, unescape
from cacheadmin.exceptions import InvalidKey, InvalidTenant
from cacheadmin.keys import Entry, Place, Scoped, check_group, logical, member, parse, split, split_own, tenant_text
from shop.models import Tenant

thorough = settings(max_examples=10_000 if os.environ.get("CI") else 150, deadline=None)
brief = settings(max_examples=1_000 if os.environ.get("CI") else 80, deadline=None)

HOSTILE = [*"*?[]\\:{}%~-!,='\"/. \n\t\0", "%25", "%3A", "~1", "tenant:", "tenant:1:", "a", "1", "é", "e\u0301"]
characters = st.characters()  # surrogates too
texts = st.one_of(
    st.lists(st.sampled_from(HOSTILE), max_size=6).map("".join),
    st.text(characters, max_size=12),
    st.sampled_from(["x" * 31, "x" * 32, "x" * 33, "x" * NAME_BYTES, "x" * (NAME_BYTES + 1), "*" * 70, "é" * 10_000]),
)

names = texts.filter(bool)
tenants = st.none() | names
groups = names.filter(lambda text: not text.startswith("tenant:"))
prefixes = st.sampled_from(["", ":1", "shop:1", "a{b}:1", "%", "}:{", "*", "ü:1"])


# --- escaping -------------------------------------------------------------------------------------------------------


@brief
@given(texts)
def test_escaping_is_undone_and_leaves_nothing_special(text: str) -> None:
    escaped = escape(text)
    assert unescape(escaped) == text
    assert escaped.isascii()
    assert escaped.isprintable()
    assert not set(escaped) & set("*?[]\\:{} ")
    assert not escaped.startswith("~")


@brief
@given(texts, texts, st.sampled_from([MEMBER_BYTES, NAME_BYTES]))
@example("~" + "A" * 22, "", 32)
def test_names_are_short_and_different_for_different_texts(one: str, other: str, limit: int) -> None:
    assert (name(one, limit) == name(other, limit)) == (one == other)
    assert len(name(one, limit)) <= limit
    assert name(one, limit).startswith("~") == (len(escape(one)) > limit)


def test_composed_and_decomposed_letters_are_different_names() -> None:
    one, other = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    assert one != other
    assert get_cache_key("x", one) != get_cache_key("x", other)
    assert get_tenant_cache_key(one, "x") != get_tenant_cache_key(other, "x")
    assert Place("p", "a", one).base != Place("p", "a", other).base


# --- Redis keys -----------------------------------------------------------------------------------------------------


def redis_keys(entry: Entry) -> dict[str, str]:
    """Return kind -> name of every Redis key that belongs to an entry."""
    group = entry.group
    kinds = {"v": entry.key, "l": entry.lease, "f": group.fence, "i": group.index, "g": group.epoch}
    kinds |= {"t": group.tenant_epoch, "r": group.registry}
    return kinds | {f"x{tag}": group.place.tag_epoch(tag) for tag in entry.tags}


places = st.tuples(tenants, names, texts)


def entry(parts: tuple[str | None, str, str], prefix: str = "p:1", alias: str = "query") -> Entry:
    tenant, group, rest = parts
    return Entry(Place(prefix, alias, tenant).group(group), member(rest))


@thorough
@given(places, places)
@example(("-", "g", "x"), (None, "g", "x"))
@example(("%2D", "g", "x"), ("-", "g", "x"))
@example(("a", "b:c", "d"), ("a", "b", "c:d"))
@example(("a:b", "c", "d"), ("a", "b:c", "d"))
@example(("x" * 300, "g", "x"), (name("x" * 300), "g", "x"))
@example(("t", "g" * 300, "x"), ("t", name("g" * 300), "x"))
@example(("t", "g", "m" * 300), ("t", "g", member("m" * 300)))
@example(("1}:v:g:x", "g", "x"), ("1", "g", "x"))
def test_entries_never_meet(one: tuple, other: tuple) -> None:
    mine, theirs = redis_keys(entry(one)), redis_keys(entry(other))
    assert (mine["v"] == theirs["v"]) == (mine["l"] == theirs["l"]) == (one == other)
    assert (mine["g"] == theirs["g"]) == (mine["f"] == theirs["f"]) == (mine["i"] == theirs["i"])
    assert (mine["g"] == theirs["g"]) == (one[:2] == other[:2])
    assert (mine["t"] == theirs["t"]) == (mine["r"] == theirs["r"]) == (one[0] == other[0])
    for kind, key in mine.items():
        assert all(key != their_key for their_kind, their_key in theirs.items() if their_kind != kind)


@thorough
@given(texts, st.integers(), st.integers(), st.integers(), st.integers())
def test_parts_do_not_run_into_each_other(text: str, a: int, b: int, c: int, d: int) -> None:
    """The same text cut at other places makes other keys."""
    assume(len(text) >= 3)
    cuts = [sorted((1 + x % (len(text) - 1), 1 + y % (len(text) - 1))) for x, y in ((a, b), (c, d))]
    one, other = ((text[:i], text[i:j] or "g", text[j:]) for i, j in cuts)
    assert (entry(one).key == entry(other).key) == (one == other)
    assert (get_cache_key("x", *one) == get_cache_key("x", *other)) == (one == other)
    assume(not one[1].startswith("tenant:") and not other[1].startswith("tenant:"))
    keys = [get_tenant_cache_key(t, g, r) for t, g, r in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@brief
@given(prefixes, names, places, st.lists(names, max_size=3))
def test_all_keys_of_a_place_share_one_slot_and_none_is_a_glob(
    prefix: str, alias: str, parts: tuple, tags: list
) -> None:
    made = entry(parts, prefix, alias)
    keys = redis_keys(Entry(made.group, made.member, tuple(tags)))
    assert len({key_slot(key.encode()) for key in keys.values()}) == 1
    for key in keys.values():
        assert key.count("{") == key.count("}") == 1
        assert key.index("}") - key.index("{") > 1
        assert not set(key.replace(prefix, "", 1)) & set("*?[]\\ \n")
        assert len(key) <= len(prefix) * 3 + 3 * len(alias.encode("utf-8", "surrogatepass")) + 2 * NAME_BYTES + 50


@brief
@given(prefixes, names, places)
def test_keys_lead_back_to_their_parts(prefix: str, alias: str, parts: tuple) -> None:
    tenant, group, rest = parts
    made = entry(parts, prefix, alias)
    for kind, key in redis_keys(made).items():
        parsed = parse(key, prefix, alias)
        assert parsed is not None
        assert parsed.kind == kind
        assert parsed.tenant == (tenant if tenant is None or len(escape(tenant)) <= NAME_BYTES else name(tenant))
        if kind in "vlfig":
            assert parsed.group == (group if len(escape(group)) <= NAME_BYTES else name(group))
        if kind in "vl":
            assert parsed.member == member(rest)
            hidden = [len(escape(t)) > NAME_BYTES for t in (tenant or "", group)] + [len(escape(rest)) > MEMBER_BYTES]
            assert parsed.is_digest == any(hidden)
        assert parse(key, prefix, alias + "x") is None
        assert parse(key, prefix + "x", alias) is None


@brief
@given(st.text(characters), prefixes)
def test_parsing_foreign_keys_never_fails(text: str, prefix: str) -> None:
    assert parse(text, prefix, "query") is None
    start = Place(prefix, "query", None).base.removesuffix("-}:")
    for foreign in (start + text, start + "1}" + text, start + "1}:" + text, start + "1}:v:" + text):
        parsed = parse(foreign, prefix, "query")
        assert parsed is None or parsed.kind in "vlftgxri"


def test_versions_of_a_key_are_different_members() -> None:
    members = [member(rest, version) for rest in ("x", "2:x", "\ufffdx") for version in (None, 1, 2, -1, 12, 2**70)]
    assert len(set(members)) == len(members)
    assert all(len(m) <= MEMBER_BYTES for m in members)


# --- tenants --------------------------------------------------------------------------------------------------------


def test_number_text_and_instance_are_one_tenant() -> None:
    assert {tenant_text(t) for t in (12, "12", Tenant(pk=12), mark_safe("12"))} == {"12"}
    assert tenant_text(uuid.UUID(int=5)) == "00000000-0000-0000-0000-000000000005"
    assert tenant_text(0) == "0"
    assert tenant_text(Tenant(pk=uuid.UUID(int=5))) == tenant_text(uuid.UUID(int=5))


class Color(enum.Enum):
    RED = "1"


class Level(enum.IntEnum):
    LOW = 1


class Kind(enum.StrEnum):
    RING = "ring"


@pytest.mark.parametrize(
    "nobody", [None, "", True, False, 1.0, b"1", [], {}, Color.RED, Level.LOW, Kind.RING, object(), Decimal(1)]
)
def test_what_is_no_id_is_no_tenant(nobody: object) -> None:
    for call in (lambda: tenant_text(nobody), lambda: get_tenant_cache_key(nobody, "x")):
        with pytest.raises(InvalidTenant, match="no tenant id"):
            call()
    with pytest.raises(InvalidTenant):
        tenant_text(Tenant(pk=nobody))


# --- callers' keys --------------------------------------------------------------------------------------------------


@thorough
@given(tenants, groups, texts.filter(lambda text: ":" not in text))
def test_split_undoes_logical(tenant: str | None, group: str, rest: str) -> None:
    key = logical(tenant, group, rest)
    assert split(key) == Scoped(tenant, group, rest)
    if tenant is not None:
        assert split(logical(tenant, "", rest)) == Scoped(tenant, "", rest)
        own = logical(None, group, rest)
        assert split_own(own) == (group, rest)


@brief
@given(names, names, texts.filter(lambda text: ":" not in text))
def test_group_of_a_tenant_may_look_like_a_tenant(tenant: str, group: str, rest: str) -> None:
    assert split(logical(tenant, group, rest)) == Scoped(tenant, group, rest)
    assert split_own(logical(None, group, rest)) == (group, rest)


@brief
@given(st.text(characters) | texts)
def test_any_text_is_a_key(key: str) -> None:
    """It has a scope, or none, or is ambiguous; what it is split into makes the same key again."""
    try:
        scoped = split(key)
    except InvalidKey:
        assert key.startswith("tenant:")
        assert "%" in key
        return
    if scoped is not None:
        assert logical(scoped.tenant, scoped.group, scoped.rest) == key


@pytest.mark.parametrize(
    ("key", "scoped"),
    [
        ("plain", None),
        ("", None),
        (":x", None),
        ("a:b", Scoped(None, "a", "b")),
        ("a:b:c", Scoped(None, "a:b", "c")),
        ("a:", Scoped(None, "a", "")),
        ("tenant:1", Scoped(None, "tenant", "1")),
        ("tenant:1:x", Scoped("1", "", "x")),
        ("tenant:1:", Scoped("1", "", "")),
        ("tenant:1::x", Scoped("1", "", ":x")),
        ("tenant:1:a:b:c", Scoped("1", "a:b", "c")),
        ("tenant:1:inventory_list:~abc", Scoped("1", "inventory_list", "~abc")),
        ("tenant::a:b", Scoped(None, "tenant::a", "b")),
        ("Tenant:1:a:b", Scoped(None, "Tenant:1:a", "b")),
        ("tenant:a%3Ab:g:x", Scoped("a:b", "g", "x")),
        ("tenant:50%25:g:x", Scoped("50%", "g", "x")),
        ("a\n:b", Scoped(None, "a\n", "b")),
    ],
)
def test_scope_of_a_key(key: str, scoped: Scoped | None) -> None:
    assert split(key) == scoped


@pytest.mark.parametrize("key", ["tenant:%41:g:x", "tenant:50%:g:x", "tenant:%3a:g:x", "tenant:%:x"])
def test_tenant_that_could_be_two_is_refused(key: str) -> None:
    with pytest.raises(InvalidKey, match="get_tenant_cache_key"):
        split(key)


@pytest.mark.parametrize("group", ["", None, 5, b"x", "tenant:1", "tenant:"])
def test_group_that_is_none_is_refused(group: object) -> None:
    for call in (lambda: check_group(group), lambda: get_cache_key(group), lambda: get_tenant_cache_key(1, group)):
        with pytest.raises(InvalidKey):
            call()


# --- the helpers of the reference site ------------------------------------------------------------------------------


def test_keys_of_the_reference_site_have_its_form() -> None:
    group, rest = get_cache_key("test", "a", "b").split(":")
    assert group == "test"
    assert rest
    assert get_tenant_cache_key(123, "inventory", branch_id=456) == "tenant:123:inventory:branch_id=456"
    tenant_id, branch_id = 5, 7
    assert get_cache_key("inventory", tenant_id, branch_id) == "inventory:5,7"
    assert get_tenant_cache_key(tenant_id, "sales", year=2024) == "tenant:5:sales:year=2024"
    assert get_cache_key("test") == "test:-"
    assert get_tenant_cache_key(1, "report:sales_report") == "tenant:1:report:sales_report:-"


def test_order_of_keywords_does_not_matter_and_that_of_arguments_does() -> None:
    assert get_cache_key("x", a=1, b=2, c="z" * 99) == get_cache_key("x", c="z" * 99, b=2, a=1)
    assert get_cache_key("x", a=1, b=2) == get_cache_key("x", b=2, a=1)
    assert get_cache_key("x", 1, 2) != get_cache_key("x", 2, 1)
    assert get_cache_key("x", {"a": 1, "b": 2}) == get_cache_key("x", {"b": 2, "a": 1})
    assert get_cache_key("x", {3, 1, 2}) == get_cache_key("x", frozenset([1, 2, 3]))
    assert get_cache_key("x", [1, 2]) != get_cache_key("x", [2, 1])


SCALARS = [
    *(1, "1", True, None, 1.0, Decimal(1), Decimal("1.0"), b"1", bytearray(b"1"), 1 + 0j, "True", "None", "'1'", "i"),
    *(0, "", False, 0.0, -0.0, "-", b"", [], (), {}, frozenset(), [None], [[]], [()], ((),), {"": None}, "~", "%31"),
    *(dt.date(2024, 1, 1), dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "2024-01-01", dt.time(1)),
    *(dt.datetime(2024, 10, 27, 2), dt.datetime(2024, 10, 27, 2, fold=1), dt.timedelta(1), dt.timedelta(seconds=1)),
    *(uuid.UUID(int=1), str(uuid.UUID(int=1)), uuid.UUID(int=1).hex, Color.RED, Level.LOW, Kind.RING, "ring", dt.UTC),
    *(float("nan"), float("inf"), "nan", Decimal("NaN"), 10**400, 2**63, "a,b", "a'", "a','b", "a=1", "1,1"),
    *(["a", "b"], ["a,b"], ["ab"], [["a"], "b"], [1, 2], [12], {"a": 1}, {"a": "1"}, {1: "a"}, [("a", 1)]),
]


def test_values_of_other_types_never_meet() -> None:
    encoded = [canonical(value) for value in SCALARS]
    assert len(set(encoded)) == len(SCALARS)
    keys = [get_cache_key("x", value) for value in SCALARS] + [get_cache_key("x", a=value) for value in SCALARS]
    keys += [get_cache_key("x", value, value) for value in SCALARS] + [get_cache_key("x")]
    assert len(set(keys)) == len(keys)


def typed(value: object) -> object:
    """Return what two values have in common exactly when they are the same of the same type."""
    if isinstance(value, dict):
        return ("dict", frozenset((typed(k), typed(v)) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, tuple(map(typed, value)))
    return (type(value).__name__, repr(value))


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.sampled_from(SCALARS[:11]),
    texts,
    st.floats(),
    st.binary(),
)
nested = st.lists(plain, max_size=3) | st.tuples(plain) | st.dictionaries(texts, plain, max_size=2)
values = plain | nested | st.lists(nested, max_size=2)
keywords = st.dictionaries(st.sampled_from(["a", "b", "ab", "ü"]), values, max_size=2)
arguments = st.tuples(st.lists(values, max_size=2), keywords)


@thorough
@given(arguments, arguments)
@example((["a"], {}), ([], {"a": "a"}))
@example(([1, 2], {}), (["1,2"], {}))
@example((["a", "b"], {}), (["a','b"], {}))
@example(([[1]], {}), ([(1,)], {}))
@example(([], {"a": 1}), (["a=1"], {}))
@example(([{"a": 1}], {}), ([], {"a": 1}))
def test_arguments_meet_only_if_they_are_the_same(one: tuple, other: tuple) -> None:
    for limit in (MEMBER_BYTES, 5):
        keys = [fingerprint(tuple(args), kwargs, limit) for args, kwargs in (one, other)]
        assert (keys[0] == keys[1]) == (typed(one) == typed(other))
    for key in keys:
        assert ":" not in key
        assert key.isascii()
    assert split(get_cache_key("g", *one[0], **one[1])) == Scoped(None, "g", fingerprint(tuple(one[0]), one[1]))


@brief
@given(names, groups, arguments)
def test_key_of_a_tenant_is_that_tenants_and_no_others(tenant: str, group: str, call: tuple) -> None:
    args, kwargs = call
    key = get_tenant_cache_key(tenant, group, *args, **kwargs)
    scoped = split(key)
    assert scoped is not None
    assert (scoped.tenant, scoped.group) == (tenant, group)
    assert len(member(scoped.rest)) <= MEMBER_BYTES
    assert split(get_cache_key(group, *args, **kwargs)) == Scoped(None, group, scoped.rest)


def test_what_django_hands_to_views_and_forms_has_a_stable_value() -> None:
    assert canonical(lazystr("a")) == canonical(mark_safe("a")) == canonical("a")
    query = QueryDict("b=2&a=1&a=3")
    assert canonical(query) == canonical(MultiValueDict({"a": ["1", "3"], "b": ["2"]}))
    assert canonical(query) != canonical(QueryDict("b=2&a=3&a=1"))
    assert canonical(query) != canonical({"a": ["1", "3"], "b": ["2"]}), "it answers with the last one, a dict with all"


@pytest.mark.parametrize("value", [object(), SimpleNamespace(), len, (n for n in ()), type, range(3), [object()]])
def test_value_without_a_stable_form_is_refused(value: object) -> None:
    with pytest.raises(InvalidKey, match="Pass its id"):
        get_cache_key("x", value)
    with pytest.raises(InvalidKey):
        get_cache_key("x", a={"b": [value]})


def test_readable_arguments_are_readable_and_long_ones_are_digests() -> None:
    assert fingerprint((), {}) == "-"
    assert fingerprint((5, "rings"), {"year": 2024}) == "5,'rings',year=2024"
    assert fingerprint(("a b",), {}).startswith("~")
    assert fingerprint(("x" * 10_000,), {}).startswith("~")
    assert len(fingerprint(("x" * 10_000,), {})) == 23
    assert fingerprint(("x" * 30,), {}) == "'" + "x" * 30 + "'"
    assert fingerprint(("x" * 31,), {}).startswith("~")


def test_a_key_that_only_looks_like_ours_is_read_without_an_error() -> None:
    found = parse("site:1:{query:%B0}:v:%FF:x", "site:1", "query")
    assert found is not None
    assert (found.tenant, found.group, found.member) == ("%B0", "%FF", "x")
