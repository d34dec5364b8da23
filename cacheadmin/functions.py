"""Cached functions: the decorators for queries, and the registry that pages and commands read."""

from __future__ import annotations

import functools
import inspect
import logging
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from . import invalidation, transactions
from .arguments import Arguments, name_of
from .conf import default_timeout
from .exceptions import CacheAway, InvalidKey, InvalidTenant
from .invalidation import Invalidation
from .keys import Entry, check_group, logical, tenant_text
from .reading import Call, Options, Pace, get, get_async, refreshing, run, run_async
from .results import settled
from .store import ABSENT, Store, store
from .targets import ALL, Target
from .tenancy import tenancy

logger = logging.getLogger("cacheadmin")

P = ParamSpec("P")
R = TypeVar("R")

TENANT_NAMES: Final = ("tenant_id", "tenant")
"""Parameters that say whose entry it is, looked for in this order."""

MOST_MADE: Final = 1024
"""Entries of each function that are not made anew for each call."""

LONGEST_MADE: Final = 64
"""Characters of an argument for which an entry is kept: it is kept as long."""

MOST_TAGS: Final = 100
"""Tags that one entry may carry; each is a key more to read on every hit, and a header counts them in one byte."""

Tags = str | Iterable[str] | Callable[..., Iterable[str]]
"""Format strings over the arguments (`"branch:{branch_id}"`), or a callable of the same arguments that returns tags."""

WarmWith = Iterable[Any] | Callable[[str], Iterable[Any]]
"""Arguments to warm, for each tenant: tuples or dicts of arguments after the tenant, or a callable of the tenant id."""

registry: dict[str, CachedFunction[..., Any]] = {}
"""Dotted name -> every decorated function, view and helper that was imported."""


def timeout_ms(alias: str, timeout: Any) -> int:
    """Return Django's timeout (seconds, None for ever, 0 not at all) as ms: 0 for ever, -1 not at all."""
    if timeout is DEFAULT_TIMEOUT:
        timeout = default_timeout(alias)
    if timeout is None:
        return 0
    if not isinstance(timeout, (int, float)):
        raise ValueError(f"The timeout is {timeout!r:.100}; give seconds, or None for ever.")
    return max(1, int(timeout * 1000)) if timeout > 0 else -1


def check_numbers(name: str, timeout: Any, grace: Any, jitter: Any) -> None:
    """Raise ValueError for a timeout, grace or jitter that a function cannot have; a first call would be too late."""
    numbers = (int, float)
    if timeout is not None and timeout is not DEFAULT_TIMEOUT and not isinstance(timeout, numbers):
        raise ValueError(f"The timeout of {name} is {timeout!r:.100}; give seconds, or None for ever.")
    if not isinstance(grace, numbers) or grace < 0:
        raise ValueError(f"The grace of {name} is {grace!r:.100}; give seconds.")
    if not isinstance(jitter, numbers) or not 0 <= jitter <= 1:
        raise ValueError(f"The jitter of {name} is {jitter!r:.100}; give a share of the timeout, 0 to 1.")


def given_tags(tags: Tags) -> tuple[str, ...] | Callable[..., Iterable[str]]:
    """Return tags as a decorator keeps them; one text is one tag, not its letters."""
    return tags if callable(tags) else (tags,) if isinstance(tags, str) else tuple(tags)


def made_tags(tags: Iterable[Any], name: str) -> tuple[str, ...]:
    """Return the tags of one entry, each once. Raises: InvalidKey for more than `MOST_TAGS`."""
    made = tuple(dict.fromkeys(map(str, tags)))
    if len(made) > MOST_TAGS:
        raise InvalidKey(f"An entry of {name} carries {len(made)} tags; at most {MOST_TAGS} are allowed.")
    return made


class Cached:
    """What cached functions and cached views have in common."""

    alias: str
    group: str
    function: Callable[..., Any]
    is_async: bool
    _options: Options | None

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind like a function does, so that methods can be decorated."""
        if instance is None:
            return self
        bound = functools.partial(cast(Callable[..., Any], self), instance)
        return markcoroutinefunction(bound) if self.is_async else bound

    def __reduce__(self) -> str:
        """Pickle, and copy, as a function does: by its name."""
        return self.function.__qualname__

    def invalidate_all(self, tenant: Any = None) -> Invalidation:
        """Invalidate the whole group, of one tenant or (None) of all and of shared data."""
        whose = ALL if tenant is None else tenant_text(tenant)
        return invalidation.request([Target("group", self.group, whose, self.alias)])

    def forget_options(self) -> None:
        """Look the settings up again (they changed in a test)."""
        self._options = None


class CachedFunction(Cached, Generic[P, R]):
    """
    A function whose results are cached; call it as before.

    `f.key(…)`, `f.peek(…)`, `f.refresh(…)`, `f.invalidate(…)` and `f.warm(…)` take the function's own arguments.
    """

    kind = "function"

    def __init__(
        self,
        function: Callable[P, R],
        *,
        timeout: Any,
        key_prefix: str | None,
        alias: str,
        needs_tenant: bool,
        shared: bool = False,
        tags: Tags = (),
        version: Any = None,
        grace: float = 0,
        single_flight: bool = True,
        jitter: float = 0.0,
        cache_none: bool = True,
        condition: Callable[[Any], bool] | None = None,
        warm_with: WarmWith | None = None,
        max_value_bytes: int | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name_of(function)
        check_numbers(self.name, timeout, grace, jitter)
        self.alias = alias
        self.group = check_group(key_prefix or function.__name__)
        self.timeout = timeout
        self.grace = grace
        self.tags = given_tags(tags)
        self.warm_with = warm_with
        self.shared = shared
        self.arguments = Arguments(function, version)
        self.pace = Pace()
        self.is_async = iscoroutinefunction(function)
        self._has_seen_the_tenancy = False
        self._options: Options | None = None
        self._made = functools.lru_cache(MOST_MADE)(self._make_entry)
        self._kept = (single_flight, jitter, cache_none, condition, max_value_bytes)
        names = self.arguments.names
        if needs_tenant:
            if not names:
                raise InvalidTenant(f"{self.name} takes no argument; the first one must be the tenant id.")
            self.tenant_parameter: str | None = names[0]
        else:
            self.tenant_parameter = None if shared else next((n for n in TENANT_NAMES if n in names), None)
        if self.is_async:
            markcoroutinefunction(self)
        registry[self.name] = self

    # --- whose entry it is ------------------------------------------------------------------------------------------

    @property
    def may_fall_back(self) -> bool:
        """Whether the entry is shared when no tenant is active: nothing in the code says whose it is."""
        return self.tenant_parameter is None and not self.shared

    def options(self) -> Options:
        """Return how its entries are kept; the alias' default timeout is looked up on the first call."""
        if self._options is None:
            single_flight, jitter, cache_none, condition, max_value_bytes = self._kept
            self._options = Options(
                timeout_ms=timeout_ms(self.alias, self.timeout),
                grace_ms=int(self.grace * 1000),
                single_flight=single_flight,
                jitter=jitter,
                cache_none=cache_none,
                condition=condition,
                max_value_bytes=max_value_bytes,
            )
        return self._options

    def _tenant(self, bound: Mapping[str, Any]) -> str | None:
        if self.tenant_parameter is not None:
            if not self._has_seen_the_tenancy:
                self._look_at_the_tenancy()
            try:
                return tenant_text(bound[self.tenant_parameter])
            except InvalidTenant as error:
                raise InvalidTenant(f"{self.name}() was called without a tenant: {error}") from error
        return None if self.shared else tenancy().current()

    def _look_at_the_tenancy(self) -> None:
        """Say once, where a developer looks, that no rule will drop these entries; the doctor says it as W038."""
        self._has_seen_the_tenancy = True
        if not tenancy().has_tenants:
            logger.warning(
                "%s() keeps entries of tenants, but CACHEADMIN['TENANCY'] names none: rules and the console do not "
                "reach them. Name a tenancy, for example a ForeignKeyTenancy.",
                self.name,
            )

    def entry(self, *args: Any, **kwargs: Any) -> Entry:
        """Return the entry of a call. Raises: InvalidTenant; InvalidKey; TypeError as the function would."""
        return self._entry(store(self.alias), args, kwargs)

    def _entry(self, where: Store, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Entry:
        # Then nothing but the arguments decides whose entry it is and what it is called. No values of these types are
        # equal, as 1 and True are.
        if not self.tags and (self.shared or self.tenant_parameter is not None) and not where.follows_tenant:
            for value in (*args, *kwargs.values()) if kwargs else args:
                kind = type(value)
                if kind is not int and (kind is not str or len(value) > LONGEST_MADE) and value is not None:
                    break
            else:
                return self._made(where, *args, **kwargs)
        return self._make_entry(where, *args, **kwargs)

    def _make_entry(self, where: Store, /, *args: Any, **kwargs: Any) -> Entry:
        bound = self.arguments.bind(args, kwargs)
        place = where.place(self._tenant(bound))
        try:
            member = self.arguments.name(bound, self.tenant_parameter)
        except InvalidKey as error:
            raise InvalidKey(f"{self.name}() cannot be cached for these arguments. {error}") from error
        return Entry(place.group(self.group), member, self._tags_of(bound) if self.tags else ())

    def _tags_of(self, bound: Mapping[str, Any]) -> tuple[str, ...]:
        if callable(self.tags):
            args, kwargs = self.arguments.given(bound)
            return made_tags(self.tags(*args, **kwargs), self.name)
        return made_tags((tag.format(**bound) for tag in self.tags), self.name)

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        where = store(self.alias)
        entry = self._entry(where, args, kwargs)
        return Call(
            where,
            entry,
            functools.partial(self._compute, args, kwargs),
            options=self._options or self.options(),
            pace=self.pace,
            about=functools.partial(self._about, entry, args, kwargs),
            sender=self,
        )

    def _compute(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return self._awaited(args, kwargs) if self.is_async else settled(self.function(*args, **kwargs))

    async def _awaited(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return await sync_to_async(settled, thread_sensitive=True)(await cast(Any, self.function(*args, **kwargs)))

    def _about(self, entry: Entry, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        bound = self.arguments.bind(args, kwargs)
        return {"fn": self.name, "args": self.arguments.shown(bound, self.tenant_parameter), "tags": list(entry.tags)}

    # --- what callers use -------------------------------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """
        Return the cached value, or compute and keep it.

        Cost:    a hit 1 round trip and one MGET; a miss 3 round trips, 2 with `single_flight=False`.
        """
        if self.is_async:
            return cast(R, get_async(functools.partial(self._call, args, kwargs)))
        value: R = get(self._call(args, kwargs))
        return value

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call as other helpers take it. Cost: none."""
        entry = self.entry(*args, **kwargs)
        return logical(entry.group.place.tenant, self.group, entry.member)

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """
        Return the cached value, or ABSENT, also in a transaction that has written; never computes, counts nothing.

        Cost:    1 round trip.
        """
        if not transactions.may_read():
            return ABSENT
        try:
            return store(self.alias).read(self.entry(*args, **kwargs)).value
        except CacheAway:
            return ABSENT

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute and keep the value whatever is cached. Cost: 2 round trips. Never overwrites a newer value."""
        if self.is_async:
            return cast(R, self._refreshed(args, kwargs))
        call = self._call(args, kwargs)
        return cast(R, run(call, refreshing(call)))

    async def _refreshed(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        call = await sync_to_async(self._call, thread_sensitive=True)(args, kwargs)
        return await run_async(call, refreshing(call))

    def warm(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Compute and keep the value if none is cached; return whether it computed. Works from plain code only."""
        call = self._call(args, kwargs)
        try:
            if call.read().state == "hit":
                return False
        except CacheAway:
            return False
        if self.is_async:
            async_to_sync(run_async)(call, refreshing(call))
        else:
            run(call, refreshing(call))
        return True

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Invalidation:
        """Invalidate the entry of one call, and refuse computations of it under way. Cost: 1 round trip."""
        entry = self.entry(*args, **kwargs)
        key = logical(None, self.group, entry.member)
        return invalidation.request([Target("key", key, entry.group.place.tenant, self.alias)])

    def warm_calls(self, tenant: str | None) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Yield the arguments to warm for a tenant, the tenant's own argument put in."""
        if self.warm_with is None:
            return
        listed = self.warm_with(tenant) if callable(self.warm_with) else self.warm_with  # type: ignore[arg-type]
        for item in listed:
            if not isinstance(item, (tuple, list, Mapping)):
                raise TypeError(f"warm_with of {self.name} gives tuples or dicts of arguments, not {item!r:.100}.")
            args, kwargs = ((), dict(item)) if isinstance(item, Mapping) else (tuple(item), {})
            if self.tenant_parameter is not None:
                kwargs[self.tenant_parameter] = tenant
                names = [n for n in self.arguments.positional if n != self.tenant_parameter]
                if len(args) > len(names):
                    raise TypeError(
                        f"warm_with of {self.name} gives {args!r:.100}, more than the arguments beside the tenant's."
                    )
                kwargs.update(zip(names, args, strict=False))
                args = ()
            yield args, kwargs

    def __repr__(self) -> str:
        return f"<cached {self.name} in {self.alias}>"


def _options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the synonym `cache_alias` for `alias`."""
    if "cache_alias" in options:
        options["alias"] = options.pop("cache_alias")
    return options


def _check_tags(function: Callable[..., Any], tags: Tags) -> None:
    given = given_tags(tags)
    if callable(given):
        return
    names = inspect.signature(function).parameters
    for tag in given:
        for _, field, _, _ in string.Formatter().parse(tag):
            if field is not None and field.split(".")[0].split("[")[0] not in names:
                raise InvalidKey(
                    f"The tag {tag!r} of {function.__qualname__}() names {field!r}, which is no argument; "
                    f"arguments are {', '.join(names)}."
                )


def _decorator(needs_tenant: bool, timeout: Any, key_prefix: Any, alias: str, options: dict[str, Any]) -> Any:
    if callable(timeout):  # used without parentheses
        return CachedFunction(timeout, timeout=DEFAULT_TIMEOUT, key_prefix=None, alias=alias, needs_tenant=needs_tenant)

    if needs_tenant and "shared" in options:
        raise TypeError("cache_tenant_query() got an unexpected keyword argument 'shared': its entries are a tenant's")

    def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
        _check_tags(function, options.get("tags", ()))
        return CachedFunction(
            function,
            timeout=timeout,
            key_prefix=key_prefix,
            needs_tenant=needs_tenant,
            **_options({"alias": alias, **options}),
        )

    return decorate


def cache_query_result(
    timeout: Any = DEFAULT_TIMEOUT, key_prefix: str | None = None, alias: str = "query", **options: Any
) -> Any:
    """
    Cache what an expensive function returns, per arguments.

    Whose entry it is: of the tenant in the argument named `tenant_id` or `tenant`, else of the tenant active in the
    context, else shared; `shared=True` says that on purpose. A queryset is evaluated once and kept as a `ResultList`.

    Arguments: `timeout` seconds, None for ever (default: the alias'); `key_prefix` the group (default: the function's
    name); `alias` (or `cache_alias`). By keyword: `tags`, `version`, `grace` seconds, `single_flight`, `jitter` 0 to 1,
    `cache_none`, `condition(value) -> bool`, `warm_with`, `max_value_bytes`, `shared`.
    Raises:  InvalidKey for a tag that names no argument; ValueError for a number that makes no sense.
    """
    return _decorator(False, timeout, key_prefix, alias, options)


def cache_tenant_query(
    timeout: Any = DEFAULT_TIMEOUT, key_prefix: str | None = None, alias: str = "query", **options: Any
) -> Any:
    """
    Cache what an expensive function returns for a tenant; its first argument is the tenant's id.

    Options as in `cache_query_result`. A call without a tenant is an error, never "for everybody".
    Raises:  InvalidTenant for a function without arguments.
    """
    return _decorator(True, timeout, key_prefix, alias, options)
