"""Walk through the keys of one alias: SCAN page by page, delete in batches, free what nobody can read any more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from .. import connections, envelope
from ..connections import Link
from ..encoding import literal_glob
from ..encoding import name as escaped_name
from ..exceptions import CacheAway
from ..keys import Group, Parsed, Place, alias_base, logical_tenant, parse
from ..scripts import script

UNLINK_AT_ONCE: Final = 500
SCAN_COUNT: Final = 1000


def group_field(group: str) -> bytes:
    """Return a group's name as the registry holds it, whatever text it is."""
    return group.encode("utf-8", "surrogatepass")


def group_names_in(fields: Sequence[bytes]) -> list[str]:
    """Return the groups that the fields of a registry name."""
    return [field[2:].decode("utf-8", "surrogatepass") for field in fields if field.startswith(b"g:")]


class Keyspace:
    """The keys of one alias on its server, ours and plain ones. Nothing here is needed to read or to invalidate."""

    alias: str

    @property
    def link(self) -> Link:
        """The connections to the server."""
        return connections.link(self.alias)

    def _accepted(self, values: Sequence[Any]) -> None:
        """Raise CacheAway if a command was refused: what was asked did not happen."""
        for value in values:
            if isinstance(value, ResponseError):
                raise CacheAway(f"The server of alias {self.alias!r} refused: {value}") from value

    def known_groups(self, place: Place) -> list[str]:
        """Return the groups that a place's registry names, trusted or not: enough to look for orphans."""
        reply = self.link.call(("HKEYS", place.registry())).values[0]
        return group_names_in(reply) if isinstance(reply, list) else []

    def database_size(self) -> int:
        """Return how many keys the alias' database holds, other aliases' and strangers' too. Cost: 1 round trip."""
        replies = self.link.call(("DBSIZE",)).values
        self._accepted(replies)
        if not isinstance(replies[0], int):
            raise self._out_of_turn()
        return replies[0]

    def _out_of_turn(self) -> CacheAway:
        """Close the connections after a reply that no question of ours has, and return what to raise."""
        self.link.forget_lines()
        return CacheAway(f"The server of alias {self.alias!r} answered somebody else's call.")

    def scan(self, match: str) -> Iterator[list[str]]:
        """
        Yield keys that match a glob of Redis, page by page, each key at least once; pages without any are left out.

        Cost:    one round trip for every 1,000 keys of the database.
        """
        return filter(None, self.walk(match))

    def walk(self, match: str) -> Iterator[list[str]]:
        """Do as `scan`, and yield a page for each round trip: it stands for about `SCAN_COUNT` keys passed."""
        cursor: Any = 0
        sought = match.encode("utf-8", "surrogatepass")
        while True:
            reply = self.link.call(("SCAN", cursor, "MATCH", sought, "COUNT", SCAN_COUNT)).values[0]
            self._accepted([reply])
            if not (isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], list)):
                raise self._out_of_turn()
            cursor, found = reply
            yield [name.decode("utf-8", "surrogateescape") for name in found]
            if int(cursor) == 0:
                return

    def scan_parsed(self, kinds: str) -> Iterator[list[tuple[str, Parsed]]]:
        """Yield the keys of ours of some kinds (`v`, `l`, `f`, `t`, `g`, …), with their parts, page by page."""
        [glob] = self.globs(ours_only=True)
        for page in self.scan(glob):
            if wanted := [(name, parts) for name, parts in self.parted(page)[0] if parts.kind in kinds]:
                yield wanted

    def globs(self, *, ours_only: bool = False) -> list[str]:
        """Return what to SCAN for to meet every key of the alias, plain ones too: mostly one glob."""
        prefix = connections.prefix(self.alias)
        ours, plain = alias_base(prefix, self.alias), prefix + ":"
        if ours_only:
            return [literal_glob(ours) + "*"]
        # `%{}` of a prefix are escaped in ours, so that it may begin otherwise.
        return [literal_glob(start) + "*" for start in ([plain] if ours.startswith(plain) else [plain, ours])]

    def parted(self, page: Iterable[str]) -> tuple[list[tuple[str, Parsed]], list[tuple[str, str]]]:
        """Return a page's keys of our layout, with their parts, and its plain ones, with the callers' keys."""
        prefix = connections.prefix(self.alias)
        ours: list[tuple[str, Parsed]] = []
        plain: list[tuple[str, str]] = []
        base, start = alias_base(prefix, self.alias), prefix + ":"
        for name in page:
            if name.startswith(base):
                if (parts := parse(name, prefix, self.alias)) is not None:
                    ours.append((name, parts))
            elif name.startswith(start):
                plain.append((name, name[len(start) :]))
        return ours, plain

    def scan_raw(self, tenant: str | None = None) -> Iterator[list[tuple[str, str]]]:
        """
        Yield keys of the alias that are not of our layout, as (full key, caller's key), page by page.

        With `tenant` only those that begin with `tenant:<id>:`.
        """
        prefix = connections.prefix(self.alias) + ":"
        ours = alias_base(prefix[:-1], self.alias)
        below = f"tenant:{logical_tenant(tenant)}:" if tenant else ""
        for page in self.scan(literal_glob(prefix + below) + "*"):
            if found := [(name, name[len(prefix) :]) for name in page if not name.startswith(ours)]:
                yield found

    def abouts(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the notes in the headers of some values, read without their payloads. Cost: 1 round trip for 500."""
        notes: dict[str, dict[str, Any]] = {}
        for i in range(0, len(names), UNLINK_AT_ONCE):
            batch = names[i : i + UNLINK_AT_ONCE]
            replies = self.link.call(*(("GETRANGE", name, 0, _HEADER_BYTES) for name in batch)).values
            for name, reply in zip(batch, replies, strict=True):
                if isinstance(reply, bytes) and (header := envelope.parse(reply)):
                    notes[name] = dict(header.about)
        return notes

    def unlink(self, names: Sequence[str]) -> int:
        """Delete keys by name, in batches of 500. Returns: how many there were."""
        gone = 0
        for i in range(0, len(names), UNLINK_AT_ONCE):
            batch = [n.encode("utf-8", "surrogateescape") for n in names[i : i + UNLINK_AT_ONCE]]
            gone += sum(v for v in self.link.call(*(("UNLINK", name) for name in batch)).values if isinstance(v, int))
        return gone

    def clear(self) -> int:
        """Delete every key of the alias, by its own prefix. Cost: one SCAN. Returns: how many there were."""
        return sum(self.clearing())

    def clearing(self) -> Iterator[int]:
        """
        Delete every key of the alias, page by page; yields how many keys each page had.

        One pass is enough: a fill under way stands on an epoch that is gone when the pass ends.
        """
        prefix = connections.prefix(self.alias)
        starts = dict.fromkeys(
            (prefix + ":", alias_base(prefix, self.alias).partition("{")[0])
        )  # `%{}` are escaped in ours
        for start in starts:
            yield from map(self.unlink, self.scan(literal_glob(start) + "*"))

    # --- reclaiming -------------------------------------------------------------------------------------------------

    def set_aside(self, group: Group) -> str | None:
        """Rename a group's index under a random name for `reclaim`; None if there is none. Cost: 1 round trip."""
        aside = f"{group.index}:aside:{os.urandom(8).hex()}"
        reply = self.link.call(("RENAME", group.index, aside)).values[0]
        return None if isinstance(reply, ResponseError) else aside

    def reclaim(self, group: Group, aside: str, start: int, chunk: int) -> tuple[int, int]:
        """
        Free the orphans among `chunk` members of an index set aside; valid entries return to the live one.

        Cost:    1 round trip, O(chunk).
        Returns: (values freed, where to start next; 0 when all is done).
        """
        keys = (aside, group.index, group.tenant_epoch, group.epoch)
        freed, after = script("reclaim").run(self.link, keys, (group.values, start, chunk))[1]
        return int(freed), int(after)

    def scan_asides(self) -> Iterator[tuple[Group, str]]:
        """Yield indexes that were set aside and left there, by a process that ended: (group, name). Cost: a SCAN."""
        prefix = connections.prefix(self.alias)
        for page in self.scan(literal_glob(alias_base(prefix, self.alias)) + "*:aside:*"):
            for name in page:
                parsed = parse(name.rpartition(":aside:")[0], prefix, self.alias)
                if parsed is not None and parsed.kind == "i" and not parsed.is_digest:
                    yield Place(prefix, self.alias, parsed.tenant).group(parsed.group), name

    def scan_orphans(self) -> Iterator[tuple[int, list[str]]]:
        """
        Yield (values looked at, names of those that nobody can read any more), page by page.

        An entry's tags are taken from its notes, which nothing vouches for: a wrong one costs a miss.
        Cost:    3 round trips for every 1,000 keys of the database.
        """
        for page in self.scan_parsed("v"):
            names = [name for name, _ in page]
            identity, replies = self.link.call(*(("GETRANGE", name, 0, _HEADER_BYTES) for name in names))
            headers = [envelope.parse(reply) if isinstance(reply, bytes) else None for reply in replies]
            stands = [_stands_on(name, header) for name, header in zip(names, headers, strict=True)]
            asked = self.link.call(*(("MGET", *epochs) for epochs in stands)).values
            orphans = []
            for name, header, epochs in zip(names, headers, asked, strict=True):
                if header is None or not isinstance(epochs, list):
                    continue
                if header.identity != identity or list(header.epochs[: len(epochs)]) != epochs:
                    orphans.append(name)
            yield len(names), orphans


_HEADER_BYTES: Final = envelope.header_bytes_limit(tags=8)


def _stands_on(name: str, header: envelope.Header | None) -> list[str]:
    """Return the keys of the epochs that a value stands on, as far as they are known."""
    base, _, rest = name.partition("}:")
    base += "}:"
    epochs = [base + "t", f"{base}g:{rest.split(':')[1]}"]
    tags = header.about.get("tags", ()) if header else ()
    if header and isinstance(tags, list) and len(tags) == len(header.epochs) - 2:
        epochs += [f"{base}x:{escaped_name(str(tag))}" for tag in tags]
    return epochs
