"""One entry in full: its header, the beginning of its value, and what it stands on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from cacheadmin import envelope
from cacheadmin.encoding import unescape
from cacheadmin.exceptions import InvalidKey
from cacheadmin.functions import registry
from cacheadmin.keys import Entry, logical, member, split
from cacheadmin.preview import MAX_BYTES
from cacheadmin.store import RedisStore, store
from cacheadmin.targets import Target

from .entries import State, arguments_of, key_of, stands, tags_of
from .reach import covers

READ_BYTES: Final = MAX_BYTES + envelope.header_bytes_limit(tags=255)


@dataclass(frozen=True, slots=True)
class Scope:
    """One thing an entry stands on."""

    kind: Literal["tenant", "group", "tag"]
    name: str
    stored: bytes
    """The epoch in the entry's header."""
    standing: bytes | None
    """The epoch in Redis now; None if it is gone, or if the tag's name is not known."""
    is_known: bool = True

    @property
    def matches(self) -> bool:
        return not self.is_known or self.stored == self.standing


@dataclass(frozen=True, slots=True)
class EntryView:
    """One entry."""

    alias: str
    tenant: str | None
    group: str
    member: str
    full_key: str
    """Its key in Redis."""
    key: str
    """The caller's key without `tenant:<id>:`; empty where only a digest of it is known."""
    arguments: str
    state: State
    is_ours: bool
    """Whether it has a header of ours; else only its bytes are known."""
    same_server: bool
    """Whether it was written under the server's present identity."""
    expires_in: float | None
    grace: float
    stored_bytes: int
    payload: bytes
    """The first 64 KB after the header."""
    payload_bytes: int
    is_signed: bool
    scopes: tuple[Scope, ...]
    about: dict[str, Any]
    function: str
    tags: tuple[str, ...]
    round_trips: int


def entry(alias: str, tenant: str | None, group: str, name: str, *, waiting: Sequence[Target] = ()) -> EntryView | None:
    """
    Return one entry, None if it is not there.

    Cost:    2 round trips, 1 if it has no tags; at most 64 KB of the value.
    Raises:  CacheAway; UnknownAlias.
    """
    where = store(alias)
    if not isinstance(where, RedisStore):
        return None
    place = where.place(tenant)
    made = Entry(place.group(group), name)
    identity, (size, stored, ttl_ms, epochs) = where.link.call(
        ("STRLEN", made.key),
        ("GETRANGE", made.key, 0, READ_BYTES - 1),
        ("PTTL", made.key),
        ("MGET", *made.epochs()),
    )
    if not isinstance(stored, bytes) or not stored:
        return None
    header = envelope.parse(stored)
    about = dict(header.about) if header else {}
    tags = tags_of(header) if header else ()
    tag_epochs: list[bytes | None] = []
    if tags:
        tag_epochs = where.link.call(("MGET", *map(place.tag_epoch, tags))).values[0]
    function = str(about.get("fn", ""))
    grace = registry[function].grace if function in registry else 0.0
    left = ttl_ms / 1000 if ttl_ms >= 0 else None
    key = key_of(group, name)
    state: State = "live"
    if header is None or not stands(header, identity, (epochs[0], epochs[1]), tag_epochs):
        state = "orphan"
    elif any(covers(target, alias, tenant, group, tags, key) for target in waiting):
        state = "waiting"
    elif left is not None and left <= grace:
        state = "stale"
    if left is not None and state != "stale" and left > grace:
        left -= grace
    signature = envelope.SIGNATURE_BYTES if header and header.codec == envelope.SIGNED else 0
    start = header.payload_start + signature if header else 0
    return EntryView(
        alias=alias,
        tenant=tenant,
        group=group,
        member=name,
        full_key=made.key,
        key=key,
        arguments=arguments_of(name, about),
        state=state,
        is_ours=header is not None,
        same_server=header is None or header.identity == identity,
        expires_in=left,
        grace=grace,
        stored_bytes=size,
        payload=stored[start : start + MAX_BYTES],
        payload_bytes=max(0, size - start),
        is_signed=bool(signature),
        scopes=_scopes(header, tenant, group, epochs, tags, tag_epochs) if header else (),
        about=about,
        function=function,
        tags=tags,
        round_trips=2 if tags else 1,
    )


def present(alias: str, group: str, name: str, tenants: Iterable[str | None]) -> list[str | None]:
    """
    Return those of some tenants that have an entry of this name in a group.

    Cost:    1 round trip.
    Raises:  CacheAway; UnknownAlias.
    """
    where, asked = store(alias), list(tenants)
    if not isinstance(where, RedisStore) or not asked:
        return []
    keys = [Entry(where.place(tenant).group(group), name).key for tenant in asked]
    replies = where.link.call(*(("EXISTS", key) for key in keys)).values
    return [tenant for tenant, reply in zip(asked, replies, strict=True) if reply == 1]


def _scopes(
    header: envelope.Header,
    tenant: str | None,
    group: str,
    epochs: Sequence[bytes | None],
    tags: Sequence[str],
    tag_epochs: Sequence[bytes | None],
) -> tuple[Scope, ...]:
    found = [
        Scope("tenant", tenant or "", header.epochs[0], epochs[0]),
        Scope("group", group, header.epochs[1], epochs[1]),
    ]
    stored = header.epochs[2:]
    if len(stored) == len(tags) == len(tag_epochs):
        found += [Scope("tag", *parts) for parts in zip(tags, stored, tag_epochs, strict=True)]
    else:  # the notes lost some tags: how many epochs there are is certain, which tags they are of is not
        found += [Scope("tag", "", epoch, None, is_known=False) for epoch in stored]
    return tuple(found)


def logical_key(view: EntryView) -> str:
    """Return the key that callers use for an entry; empty where only a digest of it is known."""
    if not view.key:
        return ""
    scoped = split(view.key)
    return logical(view.tenant, scoped.group, scoped.rest) if scoped else logical(view.tenant, "", view.key)


def key_target(alias: str, tenant: str | None, group: str, name: str, about: dict[str, Any]) -> Target:
    """
    Return what invalidates one entry.

    It is the entry itself where its key is known, else its group: a digest cannot be turned into a key.
    """
    for text in (str(about.get("key", "")), "" if name.startswith("~") else logical(None, group, unescape(name))):
        try:
            scoped = split(text)
        except InvalidKey:
            continue
        if scoped is None:
            if text and not group and member(text) == name:
                return Target("key", text, tenant, alias)
        elif scoped.tenant in (None, tenant) and scoped.group == group and member(scoped.rest) == name:
            return Target("key", logical(None, group, scoped.rest), tenant, alias)
    return Target("group", group, tenant, alias) if group else Target("tenant", "", tenant, alias)
