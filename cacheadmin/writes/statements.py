"""Which tables an SQL statement writes, as far as its text says. Pure.

No parser: the statements of four vendors, comments and literals that look like writes are met by scanning twice, as
the text is and with literals and comments blanked, and taking both answers. A table too many only widens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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
    """Its first word, if it is one statement that begins or ends a transaction."""


_NOTHING: Final = Statement()

_WORD = re.compile(r"(?:[\s(;{]|--[^\n]*(?:\n|$)|/\*.*?\*/)*([A-Za-z]+)", re.DOTALL)

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
_CONTROL: Final = frozenset(["begin", "start", "commit", "end", "rollback", "abort"])
_NO_CONTROL = re.compile(r"\b(?:to|prepared|slave|replica|group_replication)\b|;\s*\S", re.IGNORECASE)
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
        return _NOTHING
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
    returns_rows = _RETURNING.search(sql) is not None
    sets_isolation = word in _SETS and _ISOLATION.search(blanked) is not None
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
        return Statement(tables or None, is_known, sets_isolation, returns_rows=returns_rows)
    if word in _CONTROL and not tables and not _NO_CONTROL.search(blanked):
        return Statement(sets_isolation=sets_isolation, control=word)
    may_be_wrapped = word in _WRITES and bool(tables)
    return Statement(tables, True, sets_isolation, may_be_wrapped, returns_rows, _reaches_others(word, blanked))


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
