"""A client of redis-py for code of others, without connections of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from .links import Link


class Lent(redis.Redis):
    """A client without connections of its own. No command is sent twice; it raises CacheAway and ResponseError."""

    def __init__(self, link: Link) -> None:
        super().__init__(connection_pool=link.pool)
        self._link = link

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command. Cost: one round trip."""
        return self._told(args, options, self._link.call(args, again=False).values[0])

    def _told(self, args: tuple[Any, ...], options: dict[str, Any], value: Any) -> Any:
        if isinstance(value, ResponseError):
            raise value
        callbacks: dict[str, Any] = self.response_callbacks
        meant = callbacks.get(args[0])
        options = {name: given for name, given in options.items() if name not in ("keys", "NEVER_DECODE")}
        return value if meant is None else meant(value, **options)

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
        """Return a client whose commands are sent together by `execute`."""
        return LentPipeline(self._link)


class LentPipeline(Lent):
    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._commands: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Note one command."""
        self._commands.append((args, options))
        return self

    def execute(self) -> list[Any]:
        """Send what was noted. Cost: one round trip."""
        noted, self._commands = self._commands, []
        values = self._link.call(*(args for args, _ in noted), again=False).values if noted else []
        return [self._told(*command, value) for command, value in zip(noted, values, strict=True)]
