"""From a call to what tells its entry apart."""

from __future__ import annotations

import copy
import datetime as dt
import inspect
import os
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheadmin.arguments import LABEL_CHARS, Arguments
from cacheadmin.encoding import MEMBER_BYTES
from cacheadmin.exceptions import InvalidKey

thorough = settings(max_examples=1_000 if os.environ.get("CI") else 300, deadline=None)


def plain(tenant_id, branch_id=None, *, size=20): ...
def only_positional(a, b=1, /, c=2): ...
def variable(a, *args, b=1, **kwargs): ...
def keywords(a, *, b): ...
def nothing(): ...
def swallow(**a): ...


def name(function, *args, **kwargs):
    arguments = Arguments(function)
    return arguments.name(arguments.bind(args, kwargs))


def test_calls_that_mean_the_same_have_one_name() -> None:
    assert len({name(plain, 1), name(plain, 1, None), name(plain, tenant_id=1), name(plain, 1, size=20)}) == 1
    assert len({name(only_positional, 1), name(only_positional, 1, 1), name(only_positional, 1, 1, c=2)}) == 1
    assert len({name(variable, 1), name(variable, a=1), name(variable, 1, b=1)}) == 1


def test_calls_that_differ_have_different_names() -> None:
    calls = [
        name(plain, 1),
        name(plain, 2),
        name(plain, "1"),
        name(plain, True),
        name(plain, 1, 2),
        name(plain, 1, size=2),
    ]
    calls += [name(plain, 1, "None"), name(plain, 1, 0), name(plain, 1, size=20.0), name(plain, 1, size="20")]
    calls += [name(variable, 1), name(variable, 1, 2), name(variable, 1, args=2), name(variable, 1, 2, 3)]
    calls += [name(variable, 1, (2, 3)), name(variable, 1, kwargs=1), name(variable, 1, c=1), name(variable, 1, d=1)]
    calls += [name(variable, 1, b=2), name(swallow), name(swallow, a=1), name(swallow, a={"a": 1})]
    assert len(set(calls)) == len(calls)


def test_changed_default_version_or_name_of_the_function_changes_the_label() -> None:
    def made(default: object, version: object = None) -> str:
        def f(a, b=default): ...

        return Arguments(f, version).label

    labels = [made(1), made(2), made("1"), made(None), made(1, 2), made(1, "2"), Arguments(plain).label]
    assert len(set(labels)) == len(labels)
    assert made(1) == made(1)
    assert all(len(label) == LABEL_CHARS for label in labels)
    assert all(":" not in label for label in labels)


def test_equal_value_of_another_type_is_no_default() -> None:
    def f(a=1, b=True, c=None): ...

    names = [name(f), name(f, True), name(f, 1.0), name(f, b=1), name(f, c=0)]
    assert len(set(names)) == len(names)
    assert name(f, 1, True, None) == name(f)


def test_default_that_is_only_equal_is_no_default() -> None:
    paris, london = dt.timezone(dt.timedelta(hours=1)), dt.UTC
    defaults = [(1,), [0], {"a": 1}, 0.0, Decimal("1.0"), dt.datetime(2024, 1, 1, 12, tzinfo=paris), frozenset({1})]
    others = [(True,), [False], {"a": True}, -0.0, Decimal("1.00"), dt.datetime(2024, 1, 1, 11, tzinfo=london)]
    for default, other in zip(defaults, [*others, frozenset({True})], strict=True):

        def f(a=default): ...

        assert other == default
        assert name(f, other) != name(f)
        assert name(f, copy.deepcopy(default)) == name(f)


def test_default_without_a_stable_value_always_stands_in_the_name() -> None:
    marker = object()

    def f(a=marker, b=1): ...

    arguments = Arguments(f)
    assert arguments.name(arguments.bind((1,), {})) != arguments.name(arguments.bind((2,), {}))
    with pytest.raises(InvalidKey):
        arguments.name(arguments.bind((), {}))


def test_name_is_short_and_readable_where_it_can_be() -> None:
    arguments = Arguments(plain)
    made = arguments.name(arguments.bind((1, 5), {}), without="tenant_id")
    assert made == f"{arguments.label}!branch_id=5"
    assert name(nothing).endswith("!-")
    for value in ("x" * 10_000, "a b", ["a"], "ü", "\ud800", {"a": 1}, 2**300):
        assert len(name(plain, value)) <= MEMBER_BYTES
        assert name(plain, value).isascii()


def test_arguments_are_shown_for_people() -> None:
    arguments = Arguments(plain)
    bound = arguments.bind((1,), {"branch_id": "x" * 500})
    assert arguments.shown(bound, "tenant_id").startswith("branch_id='xxx")
    assert len(arguments.shown(bound, "tenant_id")) < 150
    assert arguments.shown(arguments.bind((1,), {}), "tenant_id") == ""


values = st.sampled_from([0, 1, None, "x"])


@thorough
@given(
    st.sampled_from([plain, only_positional, variable, keywords, nothing, swallow]),
    st.lists(values, max_size=4),
    st.dictionaries(
        st.sampled_from(["tenant_id", "branch_id", "size", "a", "b", "c", "args", "kwargs", "z"]), values, max_size=4
    ),
)
def test_binding_agrees_with_the_functions_own_signature(function, args: list, kwargs: dict) -> None:
    arguments = Arguments(function)
    try:
        expected = inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            arguments.bind(tuple(args), kwargs)
        return
    expected.apply_defaults()
    assert arguments.bind(tuple(args), kwargs) == expected.arguments
