"""Which tables an SQL statement writes, as far as its text says. Pure.

No parser: the statements of four vendors, comments and literals that look like writes are met by scanning twice, as
the text is and with literals and comments blanked, and taking both answers. A table too many only widens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Statement:
    """What the text of a statement says."""

    tables: frozenset[str] | None = frozenset()
    """Last part of each written table's name, in lower case; empty: it writes nothing; None: it may write any."""
    is_known: bool = True
    """Whether it begins with a word we know."""
    sets_isolation: bool = False
    may_be_wrapped: bool = False
    """Whether it runs inside a transaction block as it does outside."""
    returns_rows: bool = False
    """Whether its rows come by RETURNING, or may: SQLite commits only when the last of them is fetched."""
    reaches_others: bool = False
    """Whether rows of tables go with it that it does not name, or not where a name is looked for."""
    control: str = ""
    """Its first word, if it is one statement that begins or ends a transaction; of several, the last such word."""
    is_several: bool = False
    """Whether it is several statements, of which some begin or end transactions."""


_NOTHING: Final = Statement()

_BETWEEN = r"(?:[\s(;{]|--[^\n]*(?:\n|$)|/\*.*?\*/)*"
"""What may stand before a statement's first word."""

_WORD = re.compile(rf"{_BETWEEN}([A-Za-z]+)", re.DOTALL)

_READS: Final = frozenset(
    [
        "select",
        "values",
        "table",
        "show",
        "set",
        "reset",
        "begin",
        "start",
        "commit",
        "end",
        "rollback",
        "abort",
        "savepoint",
        "release",
        "pragma",
        "explain",
        "analyze",
        "vacuum",
        "listen",
        "unlisten",
        "notify",
        "lock",
        "grant",
        "revoke",
        "comment",
        "reindex",
        "cluster",
        "create",
        "declare",
        "fetch",
        "move",
        "close",
        "deallocate",
        "checkpoint",
        "discard",
        "describe",
        "desc",
        "use",
        "kill",
        "flush",
        "optimize",
        "check",
        "repair",
        "attach",
        "detach",
        "security",
        "prepare",
        "load",
        "refresh",
        "alter",
        "drop",
    ]
)
"""First words that write no rows by themselves; what follows is scanned all the same."""

_WRITES: Final = frozenset(["insert", "update", "delete", "replace", "merge", "truncate", "copy", "with"])
_ANY: Final = frozenset(["call", "do", "execute", "exec"])
"""First words that run code of the database: every table may be written."""

_PART = r'(?:"(?:[^"]|"")+"|`(?:[^`]|``)+`|\[[^\]]+\]|[^\W\d][\w$#@]*)'
_NAME = rf"{_PART}(?:\s*\.\s*{_PART}){{0,3}}"
_IF = r"(?:if\s+(?:not\s+)?exists\s+)?"

_WRITE = re.compile(
    rf"""
    \b(?:
        into\s+(?:(?:temp|temporary|unlogged|table)\s+)*
      | insert\s+(?!into\b)(?:(?:low_priority|delayed|high_priority|ignore|overwrite|table)\s+)*
      | replace\s+(?!into\b)
      | merge\s+(?!into\b)
      | (?<!do\s)update\s+(?:(?:or\s+\w+|low_priority|ignore)\s+)*
      | delete\s+(?:(?:low_priority|quick|ignore)\s+)*from\s+
      | truncate\s+(?:table\s+)?
      | copy\s+
      | alter\s+table\s+{_IF}
      | drop\s+table\s+{_IF}
      | refresh\s+materialized\s+view\s+(?:concurrently\s+)?
    )
    (?:only\s+)?(?P<names>{_NAME}(?:\s*\*)?(?:\s*,\s*(?:only\s+)?{_NAME}(?:\s*\*)?)*)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ESCAPED_NAME = re.compile(r"\bu&\"", re.IGNORECASE)
"""A name in quotes with escapes for characters: which one it is, PostgreSQL knows."""

_COPY_TO = re.compile(rf"\s*copy\s+(?:binary\s+)?{_NAME}\s*(?:\([^)]*\)\s*)?to\b", re.IGNORECASE)
_COPY_QUERY = re.compile(r"\s*copy\s*\(", re.IGNORECASE)
_VERB = re.compile(r"\b(?:insert|update|delete|replace|merge|truncate|copy|call)\b", re.IGNORECASE)
_BLANKED = re.compile(r"'(?:[^'\\]|''|\\.)*(?:'|$)|\$(\w*)\$.*?(?:\$\1\$|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_RETURNING = re.compile(r"\breturning\b", re.IGNORECASE)
_CASCADE = re.compile(r"\bcascade\b", re.IGNORECASE)
_TRUNCATE = re.compile(r"\btruncate\b", re.IGNORECASE)
_JOIN_OR_SET = re.compile(r"\b(?:join|set)\b", re.IGNORECASE)
_SETS: Final = frozenset(["set", "begin", "start", "alter", "reset"])
_ISOLATION = re.compile("isolation|snapshot", re.IGNORECASE)
_RESET_ALL = re.compile(rf"{_BETWEEN}(?:reset|discard)\s+all\b", re.IGNORECASE | re.DOTALL)
"""After these all settings are those of the role again."""
SETTER: Final = "set_config"
"""PostgreSQL's function that is a SET."""
_SETTING = re.compile(rf"\b{SETTER}\b\s*(?:\(\s*'([^']*)')?", re.IGNORECASE)
"""A call of it, and which setting it names, if it is no parameter."""
_SETTINGS = re.compile(r"\bupdate\s+(?:only\s+)?(?:pg_catalog\s*\.\s*)?pg_settings\b", re.IGNORECASE)
"""The view whose rows can be set."""
_CONTROL: Final = frozenset(["begin", "start", "commit", "end", "rollback", "abort"])
_NO_CONTROL = re.compile(r"\b(?:to|prepared|slave|replica|group_replication)\b|;\s*\S", re.IGNORECASE)
_NEXT = re.compile(r";\s*\S")
_CONTROLS = re.compile(
    rf"(?:\A|;){_BETWEEN}(begin|start\s+transaction|commit|end|rollback|abort)\b(?!\s+to\b)", re.IGNORECASE | re.DOTALL
)
_NAMES = re.compile(rf"(?:only\s+)?(?P<name>{_NAME})", re.IGNORECASE)
_LAST = re.compile(rf"({_PART})\s*$")

HEAD: Final = 20_000
"""Characters of a long INSERT that are scanned; its tail is values."""


def statement(sql: Any, connection: Any = None) -> Statement:
    """Return what a statement says: text, bytes, or an object of psycopg.sql. Cost: microseconds, once a text."""
    if isinstance(sql, bytes):
        sql = sql.decode("utf-8", "replace")
    elif not isinstance(sql, str):
        as_string = getattr(sql, "as_string", None)
        sql = as_string(connection) if as_string is not None else str(sql)
    if sql.startswith(("SELECT ", "SAVEPOINT ", "RELEASE ")) and ";" not in sql and " INTO " not in sql:
        return _NOTHING if SETTER not in sql.lower() else _remembered(sql)
    return _remembered(sql) if len(sql) <= HEAD else _parse(sql)


@lru_cache(maxsize=1024)
def _remembered(sql: str) -> Statement:
    return _parse(sql)


def _parse(sql: str) -> Statement:
    match = _WORD.match(sql)
    word = match[1].casefold() if match else ""
    blanked = _BLANKED.sub(" ", sql)
    if not word and not blanked.strip("(); \t\r\n"):
        return _NOTHING
    found, control = _written(sql, word, blanked), _control_of_several(sql, blanked)
    if control:
        found = replace(found, control=control, is_several=True, may_be_wrapped=False)
    return replace(found, sets_isolation=True) if _may_set_isolation(sql, word, blanked) else found


def _written(sql: str, word: str, blanked: str) -> Statement:
    returns_rows = _RETURNING.search(sql) is not None
    if word in _ANY or _ESCAPED_NAME.search(sql):
        return Statement(None)
    if word == "insert" and len(sql) > HEAD and ";" not in sql:
        sql = sql[:HEAD]
        blanked = _BLANKED.sub(" ", sql)
    if word == "copy" and ";" not in sql:
        if _COPY_TO.match(sql):
            return _NOTHING
        if (query := _COPY_QUERY.match(sql)) is not None:
            return _parse(sql[query.end() :])
    tables = frozenset(_tables(blanked) | _tables(sql))
    is_known = word in _READS or word in _WRITES
    if not is_known or (not tables and word in _WRITES and _VERB.search(blanked)):
        return Statement(tables or None, is_known, returns_rows=returns_rows)
    if word in _CONTROL and not tables and not _NO_CONTROL.search(blanked):
        return Statement(control=word)
    may_be_wrapped = word in _WRITES and bool(tables)
    return Statement(
        tables,
        may_be_wrapped=may_be_wrapped,
        returns_rows=returns_rows,
        reaches_others=_reaches_others(word, blanked),
    )


def _control_of_several(sql: str, blanked: str) -> str:
    """Return the last word that begins or ends a transaction; empty for a statement alone, or where none does."""
    if _NEXT.search(sql) is None:
        return ""
    # In text that is blanked a literal may have taken a statement along; in the other one a literal may look like one.
    words = [*_CONTROLS.findall(blanked), *_CONTROLS.findall(sql)]
    return words[-1].split()[0].casefold() if words else ""


def _may_set_isolation(sql: str, word: str, blanked: str) -> bool:
    if any(not name or _ISOLATION.search(name) for name in _SETTING.findall(sql)):
        return True
    if _RESET_ALL.match(sql) is not None or _SETTINGS.search(sql) is not None:
        return True
    if _NEXT.search(sql) is not None:
        return _ISOLATION.search(sql) is not None
    return word in _SETS and _ISOLATION.search(blanked) is not None


def _reaches_others(word: str, sql: str) -> bool:
    if _TRUNCATE.search(sql) is not None and _CASCADE.search(sql) is not None:
        return True
    first = _JOIN_OR_SET.search(sql) if word == "update" else None
    return first is not None and first[0].casefold() == "join"  # MySQL's UPDATE of several tables


def _tables(sql: str) -> set[str]:
    return {
        _LAST.search(name["name"])[1].strip('"`[] ').replace('""', '"').casefold()  # type: ignore[index]
        for match in _WRITE.finditer(sql)
        for name in _NAMES.finditer(match["names"])
    }
