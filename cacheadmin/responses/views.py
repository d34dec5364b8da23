"""The decorator for views, and one request's read of a cached one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.http.response import HttpResponseBase

from cacheadmin.arguments import name_of
from cacheadmin.encoding import digest, fingerprint
from cacheadmin.functions import Cached, check_numbers, given_tags, made_tags, registry, timeout_ms
from cacheadmin.keys import Entry, check_group
from cacheadmin.reading import Call, Options, Pace, attempt, attempt_async, miss, run, run_async
from cacheadmin.responses.kept import Kept, varies
from cacheadmin.responses.requests import (
    SESSION,
    SessionReads,
    Whose,
    asked_for,
    header_value,
    left_a_mark,
    share_user,
    whose_request,
)
from cacheadmin.store import ABSENT, store

SAFE_METHODS: Final = ("GET", "HEAD")
OPTIONS: Final = frozenset(
    ("version", "grace", "single_flight", "jitter", "cache_none", "condition", "max_value_bytes")
)


class CachedView(Cached):
    """A view whose responses are cached; call it as before."""

    kind = "view"
    tags: Any = ()
    grace = 0.0
    warm_with = None
    tenant_parameter = None
    may_fall_back = False

    def __init__(
        self,
        view: Callable[..., Any],
        *,
        timeout: Any,
        key_prefix: str | None,
        alias: str,
        vary_on_user: bool,
        x_cache: bool,
        tags: Any = (),
        **options: Any,
    ) -> None:
        if unknown := options.keys() - OPTIONS:
            raise TypeError(f"cache_api_response() got an unexpected keyword argument {min(unknown)!r}")
        functools.update_wrapper(self, view)
        self.function = view
        self.name = name_of(view)
        check_numbers(self.name, timeout, options.get("grace", 0), options.get("jitter", 0))
        self.alias = alias
        self.group = check_group(key_prefix or view.__name__)
        self.timeout = timeout
        self.vary_on_user = vary_on_user
        self.x_cache = x_cache
        self.tags = given_tags(tags)
        self.condition: Callable[[Any], bool] | None = options.pop("condition", None)
        self.cache_none: bool = options.pop("cache_none", True)
        self.pace = Pace()
        self.is_async = iscoroutinefunction(view)
        self._given = options
        self._options: Options | None = None
        self._label = digest(f"{self.name}:{options.pop('version', '')}".encode())[1:7]
        self._vary: dict[str, tuple[str, ...]] = {}
        if self.is_async:
            markcoroutinefunction(self)
        registry[self.name] = self  # type: ignore[assignment]

    def options(self) -> Options:
        """Return how its entries are kept; the alias' default timeout is looked up on the first call."""
        if self._options is None:
            given = dict(self._given)
            grace_ms = int(given.pop("grace", 0) * 1000)
            self._options = Options(timeout_ms=timeout_ms(self.alias, self.timeout), grace_ms=grace_ms, **given)
        return self._options

    # --- one request ------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """
        Return the cached response, or the view's own.

        Cost:    a hit 1 round trip; 2 where the response varies on headers that this process has not seen yet.
        """
        request = next((a for a in args if hasattr(a, "META") and hasattr(a, "method")), None)
        if request is None or request.method not in SAFE_METHODS:
            return self.function(*args, **kwargs)
        if self.is_async:
            return self._answer_async(request, args, kwargs)
        whose = whose_request(request, vary_on_user=self.vary_on_user)
        if whose is None:
            return self.function(*args, **kwargs)
        return _Read(self, request, whose, args, kwargs).answer()

    async def _answer_async(self, request: Any, args: Any, kwargs: Any) -> Any:
        ask = sync_to_async(whose_request, thread_sensitive=True)  # may load the user
        whose = await ask(request, vary_on_user=self.vary_on_user)
        if whose is None:
            return await self.function(*args, **kwargs)
        return await _Read(self, request, whose, args, kwargs).answer_async()

    def __repr__(self) -> str:
        return f"<cached view {self.name} in {self.alias}>"


class _Read:
    """One request's read of a cached view."""

    def __init__(self, view: CachedView, request: Any, whose: Whose, args: Any, kwargs: Any) -> None:
        self.view = view
        self.request = request
        self.whose = whose
        self.args = args
        self.kwargs = kwargs
        self.response: Any = ABSENT
        """What the view returned; ABSENT if it was not called."""
        self.asked: tuple[str, ...] = ()
        """The headers on which the entry that was asked for varies."""
        self.session = SessionReads(request)

    def call(self, headers: tuple[str, ...]) -> Call:
        view, parts = self.view, asked_for(self.request, self.args, self.kwargs)
        if view.vary_on_user:
            parts["user"] = self.whose.user
        if headers:
            parts["headers"] = [(name, header_value(self.request, name)) for name in headers]
        member = f"{view._label}!{fingerprint((), parts, 25)}"
        entry = Entry(store(view.alias).place(self.whose.tenant).group(view.group), member, self._tags())
        shown = f"{self.request.method} {self.request.get_full_path()}"
        return Call(
            store(view.alias),
            entry,
            self.compute,
            options=view.options(),
            pace=view.pace,
            about=lambda: {"fn": view.name, "args": shown, "user": self.whose.user, "tags": list(entry.tags)},
            sender=view,
        )

    def _tags(self) -> tuple[str, ...]:
        tags = self.view.tags
        return made_tags(tags(self.request) if callable(tags) else tags, self.view.name)

    def compute(self) -> Any:
        if self.view.is_async:
            return self.compute_async()
        with self.session:
            self.response = self.view.function(*self.args, **self.kwargs)
        return self.settle()

    async def compute_async(self) -> Any:
        share_user(self.request)
        with self.session:
            self.response = await self.view.function(*self.args, **self.kwargs)
        return self.settle()

    def settle(self) -> Any:
        """Return what to store: the response's parts, or which headers it varies on if that is news."""
        view = self.view
        with self.session:
            kept = Kept.of(self.response)  # may render a template
        if kept is None or (self.response is None and not view.cache_none) or left_a_mark(self.request):
            return ABSENT
        if view.condition is not None and not view.condition(self.response):
            return ABSENT
        if (headers := self.varied()) != self.asked:
            return {"kind": "vary", "headers": list(headers)}
        return kept

    def varied(self) -> tuple[str, ...]:
        """Return what the response varies on: its headers, and the session, if that was read to make it."""
        headers = varies(self.response) if isinstance(self.response, HttpResponseBase) else ()
        return (*headers, SESSION) if self.session.any and self.view.vary_on_user else headers

    def known(self) -> tuple[str, ...]:
        self.asked = self.view._vary.get(self.request.path, ())
        return self.asked

    def learn(self, headers: Iterable[str]) -> None:
        if self.view._vary.get(self.request.path, ()) == tuple(headers):
            return
        if len(self.view._vary) > 10_000:
            self.view._vary.clear()
        self.view._vary[self.request.path] = tuple(headers)

    def finish(self, value: Any) -> Any:
        """Return the response for what was computed here, waited for, or cached."""
        if self.response is ABSENT:
            return self._marked(Kept.again(value), "HIT")
        self.learn(self.varied())
        return self._marked(self.response, "MISS")

    def _marked(self, response: Any, how: str) -> Any:
        if self.view.x_cache and isinstance(response, HttpResponseBase):
            response["X-Cache"] = how
        return response

    def answer(self) -> Any:
        """Return the response to a plain view's request."""
        for _ in range(2):  # once more if all that was cached are the headers it varies on
            call = self.call(self.known())
            found = attempt(call)
            if found is None:
                break
            value = found.value if found.state == "hit" else run(call, miss(call, found))
            if self.response is not ABSENT or not self._is_news(value):
                return self.finish(value)
        return self._marked(self.view.function(*self.args, **self.kwargs), "MISS")

    async def answer_async(self) -> Any:
        """Return the response to an async view's request."""
        for _ in range(2):
            call, found = await attempt_async(lambda: self.call(self.known()))
            if found is None:
                break
            value = found.value if found.state == "hit" else await run_async(call, miss(call, found))
            if self.response is not ABSENT or not self._is_news(value):
                return self.finish(value)
        return self._marked(await self.view.function(*self.args, **self.kwargs), "MISS")

    def _is_news(self, value: Any) -> bool:
        """Say whether a cached value only tells on which headers the response varies; learn them."""
        if value.get("kind") != "vary":
            return False
        self.learn(value["headers"])
        return True


def cache_api_response(
    timeout: Any = DEFAULT_TIMEOUT,
    key_prefix: str | None = None,
    alias: str = "api",
    vary_on_user: bool = True,
    *,
    x_cache: bool = False,
    **options: Any,
) -> Any:
    """
    Cache what a view answers to GET and HEAD: a function or a method, plain or async, Django's or DRF's.

    Kept are responses of status 200 that do not stream, set no cookie and are not marked `private` or `no-store`, and
    plain data; not those of a view that changed the session, left a message or showed one. They vary on tenant, host,
    path, query (in any order), the view's arguments, language, time zone, the headers of `Vary` and, by default, the
    user. A request whose tenant cannot be told is not cached. A `TemplateResponse` is rendered before it is kept.

    Arguments: `timeout` seconds; `key_prefix` the group (default: the view's name); `alias` (or `cache_alias`);
    `vary_on_user`; `x_cache` adds the header `X-Cache: HIT` or `MISS`; `tags` texts or a callable of the request;
    `version`, `grace`, `single_flight`, `jitter`, `cache_none`, `condition` (asked about the response),
    `max_value_bytes` as in `cache_query_result`.
    """
    if callable(timeout):  # used without parentheses
        return cache_api_response()(timeout)
    alias = options.pop("cache_alias", alias)

    def decorate(view: Callable[..., Any]) -> CachedView:
        return CachedView(
            view,
            timeout=timeout,
            key_prefix=key_prefix,
            alias=alias,
            vary_on_user=vary_on_user,
            x_cache=x_cache,
            **options,
        )

    return decorate
