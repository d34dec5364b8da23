"""Checks of what lies in the cache, by a sample of keys: timeouts, orphans, sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .facts import Facts
from .looking import Database, Key
from .registry import Finding, check

MIB: Final = 1024 * 1024

BIG_BYTES: Final = MIB
"""Size of one value from which on every hit is dear, and Redis is held up while it sends it."""

ORPHANS_SHARE: Final = 0.1
"""Share of the server's used memory that orphans may take."""
ORPHANS_BYTES: Final = 16 * MIB
"""Below this they are nobody's concern."""


def _named(keys: Iterable[Key]) -> str:
    """Name the functions or groups that most of some keys are of: "shop.views.stock (12), sidebar (3)"."""
    counts = Counter((key.what or _("(no group)"), key.alias) for key in keys)
    return ", ".join(f"{what} ({alias}: {n})" for (what, alias), n in counts.most_common(5))


def _share(database: Database, number: float) -> float:
    """Return what a number found in the sample stands for in the whole database."""
    return number * max(1.0, database.keys / max(1, len(database.sample)))


@check("W027", gettext_lazy("What is cached has a timeout."))
def entries_expire(facts: Facts) -> Iterator[Finding]:
    """Report values without a timeout, as far as the sample shows them."""
    for database in facts.databases:
        lasting = [key for key in database.sample if key.is_value and not key.expires]
        if lasting:
            count = round(_share(database, len(lasting)))
            yield Finding(
                ngettext("~%(n)s value never expires.", "~%(n)s values never expire.", count) % {"n": count},
                where=_named(lasting),
                why=_("They stay until they are invalidated or evicted; a write that no rule watches leaves them old."),
                fix="@cache_tenant_query(timeout=86_400, …)\ncache.set(key, value, 86_400)",
            )


@check("W028", gettext_lazy("Little memory is held by what nobody can read."))
def orphans_are_few(facts: Facts) -> Iterator[Finding]:
    """Report orphans whose memory has not come back, estimated from the sample."""
    for server in facts.servers:
        used = server.number("used_memory")
        found = {database.number: [key for key in database.sample if key.is_orphan] for database in server.databases}
        size = round(sum(_share(d, sum(key.size_bytes for key in found[d.number])) for d in server.databases))
        if size < ORPHANS_BYTES or size < ORPHANS_SHARE * used:
            continue
        aliases = [alias for d in server.databases if found[d.number] for alias in d.aliases]
        yield Finding(
            _("Orphans take ~%(size)s of %(used)s on %(server)s.")
            % {"size": filesizeformat(size), "used": filesizeformat(used), "server": server.name},
            where=_named(key for keys in found.values() for key in keys),
            why=_(
                "They are never served again, but their memory waits: the process that invalidated them ended before "
                "it had looked them through."
            ),
            fix="\n".join(f"python manage.py cache_sweep --alias {alias}" for alias in aliases),
        )


@check("W029", gettext_lazy("No value is very big."))
def values_are_small(facts: Facts) -> Iterator[Finding]:
    """Report values of a megabyte and more in the sample, by function."""
    big = [key for key in facts.sample if key.is_value and key.size_bytes >= BIG_BYTES]
    for what, alias in sorted({(key.what, key.alias) for key in big}):
        sizes = [key.size_bytes for key in big if (key.what, key.alias) == (what, alias)]
        yield Finding(
            _("%(what)s keeps values of up to %(size)s.")
            % {"what": what or _("A plain key"), "size": filesizeformat(max(sizes))},
            where=_("%(alias)s, %(n)s in a sample") % {"alias": alias, "n": len(sizes)},
            why=_("Every hit moves all of it, and Redis answers nobody else while it sends it."),
            fix=_("Cache less: one page, ids in place of rows. Or compress, and refuse what is bigger:")
            + '\n"OPTIONS": {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"}\nmax_value_bytes=1_000_000',
        )
