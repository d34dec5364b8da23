"""What can go wrong, by name. Each error also subclasses the builtin that a caller would expect."""

from __future__ import annotations


class CacheAdminError(Exception):
    """Base of every error raised by cacheadmin."""


class ImproperSettings(CacheAdminError, ValueError):
    """The dict `CACHEADMIN` holds an unknown key or a value of the wrong type."""


class UnknownAlias(CacheAdminError, KeyError):
    """A cache alias that is not among the managed ones."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class InvalidKey(CacheAdminError, ValueError):
    """A key, prefix, tag or argument that cannot be turned into a cache key."""


class InvalidTenant(CacheAdminError, ValueError):
    """A tenant id that is no id (None, a bool, empty), or no tenant where one is needed."""


class InvalidTarget(CacheAdminError, ValueError):
    """A target of an invalidation that names nothing that can be invalidated."""


class InvalidRule(CacheAdminError, ValueError):
    """A rule of the map that names an unknown model, field, alias or placeholder."""


class UncacheableValue(CacheAdminError, TypeError):
    """A value that can be read only once (a generator, an open file) or not be stored at all."""


class CacheAway(CacheAdminError, ConnectionError):
    """The cache server does not answer, answers too late, refuses to write, or is no master."""


class CacheRefused(CacheAway):
    """The cache server answered, but did not store: it is full, for example."""


class CacheSkipped(CacheAway):
    """The cache server was away a moment ago, so it was not asked at all."""
