"""Why something failed: from the text that was kept, in the reader's language, with what to do about it.

What the package itself raises is kept in English and told anew; what others raise is told as it is, without secrets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from django.utils.translation import gettext as _

from cacheadmin.doctor.secrets import HIDDEN, without_secrets
from cacheadmin.preview.values import escaped

_USERINFO: Final = re.compile(r"(?<=://)[^/\s@]+(?=@)")
"""Who logs in where, and with what, in the URL of any server."""

_STEP: Final = re.compile(r"(?P<call>.+) of (?:tenant (?P<tenant>.+)|shared data)", re.DOTALL)
_EPOCHS: Final = re.compile(r"epochs of (?P<alias>.+)")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happened, and what to do."""

    what: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.advice}".strip()


def plain(text: str) -> str:
    """Return a text of anybody without the names and passwords of servers, what does not print spelled out."""
    return escaped(_USERINFO.sub(HIDDEN, without_secrets(text)))


def trouble(error: str) -> Trouble:
    """Return what an error that was kept says to people. Cost: none worth naming."""
    text = plain(error).strip()
    for pattern, tell in _KNOWN:
        if match := pattern.fullmatch(text):
            return tell(match)
    return Trouble(text, _("The log of the process that ran it says more.") if text else "")


def silent() -> Trouble:
    """Return what is known of a run that says nothing any more."""
    return Trouble(
        _("It has said nothing for more than a minute: the process that ran it has ended, by a restart or a release."),
        _("What it had done is kept. Begin it again."),
    )


def step_in_words(step: str, whose: str | None = None) -> str:
    """Return one step of a run; `whose` is the one tenant of all its steps, which then need not name it."""
    text = plain(step)
    if match := _EPOCHS.fullmatch(text):
        return _("epochs of %(alias)s") % match.groupdict()
    match = _STEP.fullmatch(text)
    if match is None:
        return text
    call, tenant = match["call"], match["tenant"]
    if tenant is not None and tenant == whose:
        return call
    owner = _("shared data") if tenant is None else _("tenant %(id)s") % {"id": tenant}
    return _("%(thing)s of %(whose)s") % {"thing": call, "whose": owner}


# --- what the package raises ----------------------------------------------------------------------------------------


def _away(match: re.Match[str]) -> Trouble:
    found = match.groupdict()
    what = _("Redis (%(alias)s) does not answer.") % {"alias": found["alias"]}
    if why := found.get("why"):
        what = _("Redis (%(alias)s) does not answer: %(why)s.") % {"alias": found["alias"], "why": why}
    return Trouble(what, _("See in Health whether the server runs and can be reached from here, then do it again."))


def _refused(match: re.Match[str]) -> Trouble:
    alias, why = match["alias"], match["why"]
    what = _("Redis (%(alias)s) answers, but refused: %(why)s") % {"alias": alias, "why": why.rstrip(".") + "."}
    advice = {
        "OOM": _("It is full: give it more memory, or clear what is not needed, then do it again."),
        "READONLY": _("It is a replica: name the master in CACHES, then do it again."),
        "MISCONF": _("It cannot save to its disk: see its log, then do it again."),
        "NOPERM": _("Its user may not do this: see Health for what it needs, then do it again."),
    }
    words = why.partition(" ")[0]
    return Trouble(what, advice.get(words) or _("See in Health what is wrong with the server, then do it again."))


def _unknown_alias(match: re.Match[str]) -> Trouble:
    return Trouble(
        _("No cache alias %(alias)s is configured.") % {"alias": match["alias"]},
        _("Take it out of the rule that names it, or name it in CACHES again."),
    )


def _warm_with(match: re.Match[str]) -> Trouble:
    return Trouble(
        _("The arguments to warm cannot be had: warm_with raised %(error)s") % {"error": match["why"]},
        _("Mend the function's warm_with; the others were warmed."),
    )


_KNOWN: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Trouble]], ...]] = tuple(
    (re.compile(f"(?:CacheAdminError: )?{pattern}", re.DOTALL), tell)
    for pattern, tell in (
        (r"The cache server of alias '(?P<alias>[^']*)' does not answer: (?P<why>.*?)\.", _away),
        (r"The cache server of alias '(?P<alias>[^']*)' (?:is away|was replaced)\.", _away),
        (r"The server of alias '(?P<alias>[^']*)' does not answer; what is done is kept\.", _away),
        (r"Redis \((?P<alias>[^)]*)\) does not answer\.", _away),
        (r"The server of alias '(?P<alias>[^']*)' refused(?: a value)?: (?P<why>.*)", _refused),
        (
            r"The server of alias '(?P<alias>[^']*)' answered somebody else's call\.",
            lambda match: Trouble(
                _("Redis (%(alias)s) gave an answer to another question.") % match.groupdict(),
                _("Its connections were closed. Do it again."),
            ),
        ),
        (r"The cache alias (?P<alias>.*?) is not configured(?: any more)?\.", _unknown_alias),
        (r"warm_with failed: (?P<why>.*)", _warm_with),
        (
            r"Stopped before the end: what was looked at is done, the rest is not\.",
            lambda _match: Trouble(_("Stopped before the end: what was looked at is done, the rest is not.")),
        ),
        (
            r"The delivery failed; see the log\.",
            lambda _match: Trouble(_("The delivery failed."), _("The log of the process that tried says more.")),
        ),
    )
)
