"""Where the server of an alias is, and how it is spoken to: what CACHES says, with our timeouts."""

from __future__ import annotations

from typing import Any, Final

from redis.backoff import NoBackoff
from redis.retry import Retry

from ..conf import cache_settings, config

_DROPPED_OPTIONS: Final = (
    "retry",
    "retry_on_timeout",
    "retry_on_error",
    "decode_responses",
    "cache_config",
    "protocol",
    "serializer",
    "timeout",
    "queue_class",
)
"""What is ours to say, what is Django's serializer, and what `BlockingConnectionPool` alone understands."""


def server_url(alias: str) -> str:
    """Return the URL of an alias' server, the first (the master) where LOCATION lists several. Holds the password."""
    location = cache_settings(alias)["LOCATION"]
    if not isinstance(location, str):
        location = location[0]
    return location.split(",")[0].split(";")[0].strip()


def connection_options(alias: str) -> dict[str, Any]:
    options = cache_settings(alias).get("OPTIONS", {})
    kwargs = dict(options.get("CONNECTION_POOL_KWARGS", {}))
    for theirs, ours in (("USERNAME", "username"), ("PASSWORD", "password")):
        if options.get(theirs):
            kwargs[ours] = options[theirs]
    kwargs.update(
        {key: value for key, value in options.items() if key.islower() and key not in ("parser_class", "pool_class")}
    )
    for name in _DROPPED_OPTIONS:
        kwargs.pop(name, None)
    seconds = config().timeout_ms / 1000
    return kwargs | {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "decode_responses": False,
    }
