"""What a pattern means: scopes where it can be said so, else a glob that matches as Redis' own."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cacheadmin.exceptions import InvalidKey, InvalidTarget
from cacheadmin.targets import ALL, KINDS, WIDEST_PATTERN, Target, from_pattern, glob, matches, of_key

thorough = settings(
    max_examples=1_000 if os.environ.get("CI") else 300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# --- patterns -------------------------------------------------------------------------------------------------------


def below(group: str, tenant: object = ALL) -> list[Target]:
    return [Target("group", group, tenant), Target("prefix", f"{group}:", tenant)]


@pytest.mark.parametrize(
    ("pattern", "targets"),
    [
        ("*", [Target("tenant")]),
        ("tenant:*", [Target("tenant")]),
        ("tenant:12:*", [Target("tenant", tenant="12")]),
        ("tenant:a%3Ab:*", [Target("tenant", tenant="a:b")]),
        ("inventory:*", below("inventory")),
        ("report:sales:*", below("report:sales")),
        ("tenant:12:inventory:*", below("inventory", "12")),
        ("tenant:12:report:sales:*", below("report:sales", "12")),
        ("test:key1", [Target("key", "test:key1", ALL)]),
        ("tenant:12:test:key1", [Target("key", "test:key1", "12")]),
        ("tenant:12:x", [Target("key", "x", "12")]),
        ("tenant:12:", [Target("tenant", tenant="12")]),
        ("plain", [Target("key", "plain", ALL)]),
        ("inventory*", [Target("pattern", "inventory*")]),
        ("*:x", [Target("pattern", "*:x")]),
        ("in?:*", [Target("pattern", "in?:*")]),
        ("tenant:1*:*", [Target("pattern", "tenant:1*:*")]),
        ("tenant:1[2]:x:*", [Target("pattern", "tenant:1[2]:x:*")]),
        ("a\\*:*", below("a*")),
        ("tenant::*", [Target("pattern", "tenant::*")]),
        ("tenant:5::*", [Target("pattern", "tenant:5::*")]),
        (":*", [Target("pattern", ":*")]),
    ],
)
def test_pattern_becomes_scopes_where_it_means_scopes(pattern: str, targets: list[Target]) -> None:
    assert from_pattern(pattern) == targets
    named = from_pattern(pattern, "query")
    assert [target.alias for target in named] == ["query"] * len(targets)


@pytest.mark.parametrize("pattern", ["", None, 5, b"x", "*" + "x" * WIDEST_PATTERN])
def test_pattern_that_is_none_is_refused(pattern: object) -> None:
    with pytest.raises(InvalidTarget):
        from_pattern(pattern)


@pytest.mark.parametrize("pattern", ["tenant:%41:*", "tenant:50%:x:*", "tenant:%3a:x"])
def test_tenant_that_could_be_two_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidKey):
        from_pattern(pattern)


def test_key_is_of_exactly_its_tenant() -> None:
    assert of_key("a:b") == Target("key", "a:b", None)
    assert of_key("tenant:5:a:b", "query") == Target("key", "a:b", "5", "query")
    assert of_key("tenant:5:tenant:6:a:b") == Target("key", "tenant:6:a:b", "5")
    assert of_key("tenant:5::x") == Target("key", ":x", "5")
    assert of_key("plain") == Target("key", "plain", None)


@thorough
@given(st.text(st.sampled_from("tenant:1*?[]\\%a"), min_size=1, max_size=20))
@example("tenant:1:a:*")
def test_targets_of_a_pattern_are_no_narrower_than_its_glob(pattern: str) -> None:
    """Whatever key the glob matches, with or without a tenant, some target means it."""
    try:
        targets = from_pattern(pattern)
    except InvalidKey:
        return
    for key in ("a", "a:1", "tenant:1:a:1", "tenant:1:a", "tenant:1:a:1:t", "tenant:a:1:1", "1:a:t", "tenant:1:"):
        if matches(pattern, key):
            assert any(means(target, key) for target in targets), key


def means(target: Target, key: str) -> bool:
    if target.kind == "pattern":
        return matches(target.name, key)
    one = of_key(key)
    tenant, own = one.tenant, one.name
    if not (target.tenant is ALL or target.tenant == tenant):
        return False
    group = own.rpartition(":")[0]
    return {
        "tenant": True,
        "group": group == target.name,
        "prefix": group.startswith(target.name),
        "key": own == target.name,
    }[target.kind]


# --- globs ----------------------------------------------------------------------------------------------------------

pieces = ["a", "b", "c", "-", "^", "]", "[", "*", "?", "\\", "a-c", "c-a", "[ab]", "[^a]", "[a-c]", "[]", "[^]", ":"]
patterns = st.lists(st.sampled_from(pieces), max_size=7).map("".join)
keys = st.text(st.sampled_from("abc-^][*?\\:\n"), min_size=1, max_size=6)


@thorough
@given(patterns, st.lists(keys, min_size=1, max_size=20, unique=True))
@example("[c-a]", ["b"])
@example("[a-]", ["a", "-", "]"])
@example("[", ["["])
@example("[]a]", ["a]", "]"])
@example("[^]a", ["xa", "a"])
@example("a\\", ["a\\", "a"])
@example("[\\]]", ["]"])
@example("?", ["\n"])
def test_globs_match_as_those_of_a_real_server(redis, pattern: str, keys: list[str]) -> None:
    redis.flushdb()
    redis.mset(dict.fromkeys(keys, ""))
    expected = {name.decode() for name in redis.keys(pattern)} if pattern else set()
    assert {key for key in keys if glob(pattern).fullmatch(key)} == expected


def test_pattern_matches_behind_the_tenant_too() -> None:
    assert matches("inventory:*", "tenant:12:inventory:x")
    assert matches("inventory:*", "inventory:x")
    assert matches("tenant:12:*", "tenant:12:inventory:x")
    assert not matches("12:*", "tenant:12:inventory:x")
    assert not matches("nventory:*", "tenant:12:inventory:x")
    assert not matches("inventory:*", "tenant:12:my:inventory:x")
    assert not matches("x", "other:12:x")
    assert matches("ü?:*", "üé:x"), "a question mark is one letter, not one byte"


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 90 + "b", "*?" * 90, "*[a-z]" * 33 + "!", "*" * 200, "*a*a*a*a*a*a*a*a*a*b", "[" * 200, "\\" * 200],
)
def test_no_pattern_makes_matching_slow(pattern: str) -> None:
    begun = time.thread_time()
    for _ in range(20):
        glob(pattern).fullmatch("a" * 10_000)
        matches(pattern, "tenant:12:" + "a" * 10_000)
    assert time.thread_time() - begun < 15, "seconds for 40 matches; a backtracking one takes years"


# --- targets --------------------------------------------------------------------------------------------------------


def test_target_needs_what_its_kind_needs() -> None:
    for kind, target_name in (("tenant", "x"), ("group", ""), ("key", ""), ("tag", None), ("nothing", "x"), ("", "")):
        with pytest.raises(InvalidTarget):
            Target(kind, target_name)


def test_target_says_what_it_is() -> None:
    assert [str(t) for t in (Target("tenant"), Target("tag", "b", "5"), Target("group", "g", None, "api"))] == [
        "everything of all tenants",
        "tag b of tenant 5",
        "group g of shared data in api",
    ]
    assert repr(ALL) == "ALL"


@thorough
@given(
    st.sampled_from(KINDS[1:]),
    st.text(min_size=1, max_size=WIDEST_PATTERN),
    st.sampled_from([ALL, None, "1", "*", "-", "[]"]),
    st.sampled_from([None, "query"]),
)
def test_json_is_undone(kind: str, target_name: str, tenant: object, alias: str | None) -> None:
    target = Target(kind, target_name, tenant, alias)
    assert Target.from_json(target.to_json()) == target


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        None,
        "x",
        {"kind": "group"},
        {"kind": "group", "name": "x"},
        {"kind": "group", "name": 5, "tenant": "*"},
        {"kind": "what", "name": "x", "tenant": "*"},
        {"kind": "group", "name": "x", "tenant": [None]},
        {"kind": "group", "name": "x", "tenant": [""]},
        {"kind": "group", "name": "x", "tenant": 5},
        {"kind": [], "name": "x", "tenant": "*"},
    ],
)
def test_json_that_says_no_target_is_refused(data: object) -> None:
    with pytest.raises(InvalidTarget):
        Target.from_json(data)


def test_what_a_backslash_stands_before_means_itself() -> None:
    assert from_pattern(r"tenant:\*12:g:x") == [Target("key", "g:x", "*12")]
    assert from_pattern(r"tenant:\[a\]\\:*") == [Target("tenant", "", "[a]\\")]
    assert from_pattern(r"price\?:*") == [Target("group", "price?"), Target("prefix", "price?:")]
    assert [target.kind for target in from_pattern("tenant:\\*:*:x")] == ["pattern"]
    assert [target.kind for target in from_pattern("g:x\\")] == ["pattern"]
