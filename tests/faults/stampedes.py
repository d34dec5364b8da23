"""Many processes want the same value, and nobody has it: one computes, the others wait, or take what is old."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import time
from contextlib import ExitStack
from typing import Any

from django.conf import settings
from django.test import override_settings

from cacheadmin import cache_tenant_query
from faults import Asked, Outcome
from faults.peers import Peer

PROCESSES = 8
COMPUTE_SECONDS = 0.5
PATIENCE_SECONDS = 1.5
"""Of those who wait for a process that was killed."""
LONG_PATIENCE_SECONDS = 60.0
"""Of all others: whoever computes may be held up by the machine."""
MOST_COMPUTATIONS = 1.2
"""On average, of one key that all processes want at once."""
SOFT_SECONDS = 0.2
KINDS_IN_TURN = 3
TENANT = 7

_fork = multiprocessing.get_context("fork")
computed: Any = _fork.Value("i", 0)
"""Computations of all processes."""
MOST_SPANS = 10_000
spans: Any = _fork.Array("d", 2 * MOST_SPANS)
"""When each of them began and ended, on the clock of `time.monotonic`; infinite while it goes on."""
version: Any = _fork.Value("i", 1)


def compute(*_: object) -> int:
    """Take as long as a report takes; what is returned was read at the beginning."""
    seen: int = version.value
    with computed.get_lock():
        at = 2 * (computed.value % MOST_SPANS)
        spans[at : at + 2] = [time.monotonic(), math.inf]
        computed.value += 1
    time.sleep(COMPUTE_SECONDS)
    spans[at + 1] = time.monotonic()
    return seen


def needed_and_needless(begun: int) -> int:
    """Count computations since a moment, but for those of a value whose time was over again: somebody came late."""
    found = [spans[2 * (number % MOST_SPANS) :][:2] for number in range(begun, computed.value)]
    return len(found) - sum(later[0] >= earlier[1] + SOFT_SECONDS for earlier, later in itertools.pairwise(found))


@cache_tenant_query(timeout=600, key_prefix="wanted")
def wanted(tenant_id: int, number: int) -> int:
    return compute()


@cache_tenant_query(timeout=SOFT_SECONDS, key_prefix="graceful", grace=600)
def graceful(tenant_id: int, number: int) -> int:
    return compute()


def stampede(asked: Asked) -> Outcome:
    """Want `count` keys at once; every third loses its first process midway, every third is stale and not absent."""
    outcome = Outcome()
    patient = settings.CACHEADMIN | {"PATIENCE_SECONDS": LONG_PATIENCE_SECONDS}
    with override_settings(CACHEADMIN=patient), ExitStack() as stack:
        peers = [stack.enter_context(Peer()) for _ in range(PROCESSES)]
        for number, kind in zip(range(asked.count), itertools.cycle((cold, dead_holder, stale)), strict=False):
            kind(outcome, peers, number)
            if kind is dead_holder:
                peers[0] = stack.enter_context(Peer())
            if asked.stops_at_first and (outcome.violations or number == KINDS_IN_TURN):
                break  # what is computed too often shows in the average only
    average(outcome, "cold")
    average(outcome, "stale")
    return outcome


def average(outcome: Outcome, kind: str) -> None:
    """Judge how many computed what one had to compute."""
    keys = outcome.figures.get(f"{kind}_keys", 0)
    if not keys:
        return
    mean = outcome.figures.pop(f"{kind}_computations") / keys
    outcome.figures[f"computations_a_{kind}_key"] = mean
    if mean > MOST_COMPUTATIONS:
        outcome.violate("computed_too_often", f"{kind}: {mean:.2f} computations a key in {PROCESSES} processes")


def wait_for_others(seconds: float) -> None:
    """Have this process wait no longer than that for what another one computes."""
    override_settings(CACHEADMIN=settings.CACHEADMIN | {"PATIENCE_SECONDS": seconds}).enable()


def all_want(peers: list[Peer], function: Any, number: int) -> list[tuple[int, float]]:
    """Let all processes read one key at once. Returns: values and seconds."""
    for peer in peers:
        peer.ask(timed, function.__name__, number)
    return [peer.answer() for peer in peers]


def timed(name: str, number: int) -> tuple[int, float]:
    """Read, and say how long it took."""
    begun = time.monotonic()
    value = {"wanted": wanted, "graceful": graceful}[name](TENANT, number)
    return value, time.monotonic() - begun


def cold(outcome: Outcome, peers: list[Peer], number: int) -> None:
    """Nobody has it."""
    before = computed.value
    told = all_want(peers, wanted, number)
    outcome.count("cold_keys")
    outcome.count("cold_computations", computed.value - before)
    check(outcome, "cold", told, {version.value})


def dead_holder(outcome: Outcome, peers: list[Peer], number: int) -> None:
    """The first process is killed while it computes; the others go on after one patience, and the value is kept."""
    for peer in peers[1:]:
        peer.tell(wait_for_others, PATIENCE_SECONDS)
    begun = computed.value
    peers[0].ask(timed, "wanted", number)
    while computed.value == begun:
        time.sleep(0.01)
    for peer in peers[1:]:
        peer.ask(timed, "wanted", number)
    time.sleep(COMPUTE_SECONDS / 5)
    peers[0].kill()
    told = [peer.answer() for peer in peers[1:]]
    outcome.count("killed_holders")
    check(outcome, "killed holder", told, {version.value})
    before = computed.value
    outcome.figures["longest_wait_ms"] = max(
        outcome.figures.get("longest_wait_ms", 0), 1000 * max(seconds for _, seconds in told)
    )
    _, seconds = peers[1].tell(timed, "wanted", number)
    if computed.value > before:
        outcome.violate(
            "blocked",
            f"the dead holder's lease keeps others from storing: read again, computed again ({seconds:.1f} s)",
        )
    for peer in peers[1:]:
        peer.tell(wait_for_others, LONG_PATIENCE_SECONDS)


def stale(outcome: Outcome, peers: list[Peer], number: int) -> None:
    """It is past its time but within its grace; then it is invalidated while somebody computes it."""
    peers[0].tell(timed, "graceful", number)
    time.sleep(SOFT_SECONDS + 0.1)
    before, old = computed.value, version.value
    told = all_want(peers, graceful, number)
    outcome.count("stale_keys")
    outcome.count("stale_computations", needed_and_needless(before))
    outcome.count("served_stale_at_once", sum(seconds < COMPUTE_SECONDS for _, seconds in told))
    check(outcome, "stale", told, {old})
    time.sleep(SOFT_SECONDS + 0.1)
    begun = computed.value
    for peer in peers[:4]:
        peer.ask(timed, "graceful", number)
    while computed.value == begun:
        time.sleep(0.01)
    version.value += 1
    graceful.invalidate_all(TENANT)  # the old value itself stays where it is
    for peer in peers[4:]:
        peer.ask(timed, "graceful", number)
    early = [peer.answer() for peer in peers[:4]]
    check(outcome, "read before its invalidation", early, {old, version.value})
    check(outcome, "read after its invalidation", [peer.answer() for peer in peers[4:]], {version.value})
    check(outcome, "read long after its invalidation", all_want(peers, graceful, number), {version.value})


def check(outcome: Outcome, when: str, told: list[tuple[int, float]], allowed: set[int]) -> None:
    """Compare what was served with what may be."""
    for value, _ in told:
        outcome.count("reads")
        if value not in allowed:
            outcome.violate("stale", f"{when}: {value} is served, not one of {allowed}")
