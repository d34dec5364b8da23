"""The words of states and paces, said once."""

from __future__ import annotations

from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from cacheadmin.models import Activity
from cacheadmin.progress import PACES
from cacheadmin.store import SCAN_COUNT

from . import formats

STATES: Final[dict[str, tuple[str | Promise, str | Promise]]] = {
    "live": (_("Live"), _("The next read is a hit.")),
    "stale": (_("Stale"), _("Served while one worker recomputes it.")),
    "orphan": (_("Orphan"), _("Never served again. Its memory is reclaimed soon.")),
    "expired": (_("Expired"), _("Gone since this list was read.")),
    "waiting": (_("Waiting"), _("Not served until its invalidation is done.")),
    "done": (_("Done"), ""),
    "running": (_("Running"), ""),
    "failed": (_("Failed"), ""),
    "cancelled": (_("Cancelled"), ""),
}
"""The word and the meaning of each state of an entry, an invalidation or a run."""


SERIALIZERS: Final[dict[str, str | Promise]] = {"bytes": _("bytes"), "integer": _("integer"), "text": _("text")}
"""Forms of a stored value that have no proper name, as pickle and JSON have one."""


def stored_as(serializer: str) -> str:
    """Return what the form of a stored value is called."""
    return str(SERIALIZERS.get(serializer, serializer))


def state_word(state: str) -> str:
    """Return the word of a state."""
    return str(STATES[state][0]) if state in STATES else state


def state_meaning(state: str) -> str:
    """Return what a state means, for hover and for readers."""
    return str(STATES[state][1]) if state in STATES else ""


def paces_for(kind: str) -> list[tuple[str, str]]:
    """Return the paces that a run of a kind may have, each with its words, fastest first."""
    is_calls, words = kind == Activity.Kind.WARM, [("fast", str(_("as fast as it goes")))]
    for name, per_second in PACES.items():
        if per_second is not None:
            text = _("at most %(n)s a second") if is_calls else _("at most %(n)s keys a second")
            words.append((name, str(text) % {"n": formats.number(per_second * (1 if is_calls else SCAN_COUNT))}))
    return words
