"""The Lua scripts in `lua/`: read once, run by their SHA-1, loaded again where a server does not know them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from .connections import Link, Replies


class Script:
    """One script. `command(...)` is what to send; `run` sends it alone."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = files("cacheadmin").joinpath("lua", f"{name}.lua").read_text("utf-8")
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], args: Sequence[Any]) -> tuple[Any, ...]:
        """Return the command that runs it by its SHA-1."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def run(
        self, link: Link, keys: Sequence[str], args: Sequence[Any], *, again: bool = True, entries: bool = False
    ) -> tuple[bytes, Any]:
        """
        Run it and return (identity of who answered, its result).

        Cost:    one round trip; two on the first call after a server started.
        Raises:  CacheAway; ResponseError, for example when the server is full.
        """
        identity, (value,) = link.call(self.command(keys, args), again=again, entries=entries)
        if isinstance(value, NoScriptError):
            command = ("EVAL", self.text, len(keys), *keys, *args)
            identity, (value,) = link.call(command, again=again, entries=entries)
        if isinstance(value, ResponseError):
            raise value
        return identity, value


def run_many(
    link: Link,
    calls: Sequence[tuple[Script, Sequence[str], Sequence[Any]]],
    *,
    again: bool = True,
    entries: bool = False,
) -> Replies:
    """Run scripts together. Cost: one round trip; two when the server lacks one. Errors stand among the replies."""
    commands = (script.command(keys, args) for script, keys, args in calls)
    replies = link.call(*commands, again=again, entries=entries)
    missing = [i for i, value in enumerate(replies.values) if isinstance(value, NoScriptError)]
    if not missing:
        return replies
    retried = link.call(
        *(("EVAL", calls[i][0].text, len(calls[i][1]), *calls[i][1], *calls[i][2]) for i in missing),
        again=again,
        entries=entries,
    )
    for i, value in zip(missing, retried.values, strict=True):
        replies.values[i] = value
    return Replies(retried.identity, replies.values)


@cache
def script(name: str) -> Script:
    """Return the script of `lua/<name>.lua`."""
    return Script(name)
