"""What can be invalidated, said once: by a rule, a person, a command or code. Pure; delivering is `invalidation`'s."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal

from .exceptions import InvalidTarget
from .keys import check_group, logical, split, tenant_text

Kind = Literal["tenant", "group", "prefix", "tag", "key", "pattern"]
"""`tenant` everything of it · `group` exactly it · `prefix` groups that begin with it · `tag` · `key` one entry ·
`pattern` a glob over callers' keys, found by a bounded SCAN."""

KINDS: Final[tuple[Kind, ...]] = ("tenant", "group", "prefix", "tag", "key", "pattern")

WIDEST_PATTERN: Final = 200
"""Longest glob; longer ones are refused (CVE-2024-31228 was a long pattern)."""


class All(enum.Enum):
    """The one value `ALL`: every tenant, known or not, and shared data too."""

    ALL = "*"

    def __repr__(self) -> str:
        return "ALL"


ALL: Final = All.ALL


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to invalidate. `alias=None` means every managed alias; `tenant=None` is shared data."""

    kind: Kind
    name: str = ""
    """Group, prefix, tag, caller's key or pattern; empty for a tenant."""
    tenant: str | All | None = ALL
    alias: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidTarget(f"{self.kind!r} is no kind of target; allowed are {', '.join(KINDS)}.")
        if self.kind == "tenant":
            if self.name:
                raise InvalidTarget(f"A target of kind 'tenant' has no name, not {self.name!r}.")
        elif not isinstance(self.name, str) or not self.name:
            raise InvalidTarget(f"A target of kind {self.kind!r} needs a name.")
        if self.kind == "pattern" and len(self.name) > WIDEST_PATTERN:
            raise InvalidTarget(
                f"The pattern is {len(self.name)} characters long; at most {WIDEST_PATTERN} are allowed."
            )

    def __str__(self) -> str:
        what = "everything" if self.kind == "tenant" else f"{self.kind} {self.name}"
        whose = (
            "all tenants" if self.tenant is ALL else "shared data" if self.tenant is None else f"tenant {self.tenant}"
        )
        return f"{what} of {whose}" + (f" in {self.alias}" if self.alias else "")

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data: `{kind, name, tenant, alias}`; a tenant is `["12"]`, shared data `[]`, all `"*"`."""
        tenant: Any = "*" if self.tenant is ALL else [] if self.tenant is None else [self.tenant]
        return {"kind": self.kind, "name": self.name, "tenant": tenant, "alias": self.alias}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Target:
        """Undo `to_json`. Raises: InvalidTarget."""
        try:
            whose = data["tenant"]
            tenant = ALL if whose == "*" else tenant_text(whose[0]) if whose else None
            return cls(data["kind"], data.get("name", ""), tenant, data.get("alias"))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidTarget(f"{data!r:.200} is no target: {error}") from error


_GLOB = re.compile(r"[*?\[\]\\]")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def _literal(pattern: str) -> str | None:
    """Return the one text that a glob without wildcards means, its backslashes taken out; None if it has wildcards."""
    return None if _GLOB.search(_ESCAPED.sub("", pattern)) else _ESCAPED.sub(r"\1", pattern)


def from_pattern(pattern: str, alias: str | None = None) -> list[Target]:
    """
    Turn a glob over callers' keys into targets; scopes where it means scopes, else a pattern.

    `tenant:12:*` is the tenant, `inventory:*` the group and the groups below it, of shared data and of every tenant,
    `tenant:12:inventory:*` the same of one tenant, and a text without a glob is one key. Anything else is a SCAN. What
    a backslash stands before means itself.
    Raises:  InvalidTarget.
    """
    if not isinstance(pattern, str) or not pattern:
        raise InvalidTarget(f"A pattern is a non-empty text, not {pattern!r}.")
    if pattern == "*":
        return [Target("tenant", tenant=ALL, alias=alias)]
    if (text := _literal(pattern)) is not None:
        return [_key(text, alias)]
    body = _literal(pattern[:-2]) if pattern.endswith(":*") else None
    if not body:
        return [Target("pattern", pattern, ALL, alias)]
    if body == "tenant":
        return [Target("tenant", tenant=ALL, alias=alias)]
    scoped = split(body + ":x")
    if body.startswith("tenant:") and (scoped is None or scoped.tenant is None or body.endswith(":")):
        return [Target("pattern", pattern, ALL, alias)]  # half a tenant is no scope
    if scoped is None or scoped.tenant is None:
        return list(_below(check_group(body), ALL, alias))
    if not scoped.group:
        return [Target("tenant", "", scoped.tenant, alias)]
    return list(_below(scoped.group, scoped.tenant, alias))


def of_key(key: str, alias: str | None = None) -> Target:
    """Return the target that means one entry by its key. Raises: InvalidKey for an ambiguous tenant."""
    scoped = split(key)
    if scoped is None:
        return Target("key", key, None, alias)
    own = logical(None, scoped.group, scoped.rest)
    return Target("key", own, scoped.tenant, alias) if own else Target("tenant", "", scoped.tenant, alias)


def _key(key: str, alias: str | None) -> Target:
    """One entry by its key; without a tenant it means the entry of that name of shared data and of every tenant."""
    target = of_key(key, alias)
    return replace(target, tenant=ALL) if target.tenant is None else target


def _below(group: str, tenant: str | All, alias: str | None) -> Iterable[Target]:
    """The group itself and those whose names go on with a colon: what the glob `<group>:*` matches."""
    yield Target("group", group, tenant, alias)
    yield Target("prefix", group + ":", tenant, alias)


def matches(pattern: str, key: str) -> bool:
    """Say whether Redis' glob matches a caller's key, as it is or behind `tenant:<id>:` (Redis, KEYS)."""
    chosen = glob(pattern)
    if chosen.fullmatch(key):
        return True
    return key.startswith("tenant:") and key.count(":") > 1 and bool(chosen.fullmatch(key.split(":", 2)[2]))


@lru_cache(maxsize=256)
def glob(pattern: str) -> re.Pattern[str]:
    """Translate a glob; parts between stars are atomic groups, so that no pattern can make matching slow."""
    pieces, i = [""], 0
    while i < len(pattern):
        char = pattern[i]
        if char == "*":
            pieces.append("")
        elif char == "?":
            pieces[-1] += "."
        elif char == "[":
            piece, i = _one_of(pattern, i + 1)
            pieces[-1] += piece
        else:
            if char == "\\" and i + 1 < len(pattern):
                i += 1
            pieces[-1] += re.escape(pattern[i])
        i += 1
    first, *rest = pieces
    if not rest:
        return re.compile(first, re.DOTALL)
    middle = "".join(f"(?>.*?{piece})" for piece in rest[:-1])
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL)


def _one_of(pattern: str, i: int) -> tuple[str, int]:
    """
    Translate what stands in brackets from `i` on, as Redis reads it.

    A range may run backwards, its end may be any character, also `]`; without a closing bracket the rest of the pattern
    is in it; empty brackets match nothing.
    Returns: the expression, and where it ends in the pattern.
    """
    is_negated = pattern[i : i + 1] == "^"
    i, chosen = i + is_negated, ""
    while i < len(pattern) and pattern[i] != "]":
        if pattern[i] == "\\" and i + 1 < len(pattern):
            i += 1
            chosen += re.escape(pattern[i])
        elif pattern[i + 1 : i + 2] == "-" and i + 2 < len(pattern):
            low, high = sorted((pattern[i], pattern[i + 2]))
            chosen += f"{re.escape(low)}-{re.escape(high)}"
            i += 2
        else:
            chosen += re.escape(pattern[i])
        i += 1
    if not chosen:
        return ("." if is_negated else "(?!)"), i
    return f"[{'^' * is_negated}{chosen}]", i
