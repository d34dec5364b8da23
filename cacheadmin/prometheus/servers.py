"""What the servers say about themselves and what waits in the outbox, exported once a site.

These are the site's numbers, not a process'. One process has the turn, keeps it until it ends, and asks for all: so
no server is asked once a worker, and no sum over workers or hosts counts it twice. Only a process that answers
requests takes the turn, since the metrics of a command would be scraped by nobody.
"""

from __future__ import annotations

import logging
import math
import os
import time
from typing import Any, Final

from django.db import Error, connections

from ..exceptions import CacheAway
from ..outbox import wake
from ..outbox.rows import databases, overdue
from ..stats.agreeing import Turn, more_evicted
from ..stats.servers import ServerInfo, database, info, servers
from ..stats.waiting import WaitingNotes
from . import metrics

logger = logging.getLogger("cacheadmin")

EVERY_SECONDS: Final = 15.0


class _Speaker:
    """This process' part in it."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.answers_requests = False
        self.has_turn = False
        self.looked = self.visited = float("-inf")
        self.waiting = WaitingNotes()


_speaker = _Speaker()


def _forked() -> None:
    """Begin anew in a child: the turn is its parent's, who would lose it when the child ends."""
    global _speaker
    _speaker = _Speaker()


os.register_at_fork(after_in_child=_forked)


def serves_requests(**_: Any) -> None:
    """Note that this process answers requests: a receiver of Django's `request_started`."""
    _speaker.answers_requests = True


def look() -> None:
    """
    Export what the servers say, if it is this process' turn.

    Cost:    in 15 s one round trip to the server of the roll-ups; who has the turn three more, and one to each server.
    """
    now = time.monotonic()
    if not _speaker.answers_requests or now - _speaker.looked < EVERY_SECONDS:
        return
    _speaker.looked = now
    try:
        had, _speaker.has_turn = _speaker.has_turn, _speaker.turn.is_mine()
    except CacheAway as error:
        logger.debug("Whose turn it is to speak of the servers is not known: %s", error)
        had = _speaker.has_turn  # who had the turn says that the server is down
    if _speaker.has_turn:
        _export()
    elif had:
        withdraw()


def _export() -> None:
    evicted: dict[str, int] = {}
    for server, aliases in servers().items():
        try:
            found = info(aliases[0])
        except CacheAway:
            metrics.SERVER_UP.labels(server).set(0)
            continue
        evicted[server] = found.evicted
        _export_server(server, aliases, found)
    try:
        for server, more in more_evicted(evicted).items():
            metrics.SERVER_EVICTED.labels(server).inc(more)
    except CacheAway as error:
        logger.debug("What was evicted is counted later: %s", error)


def _export_server(server: str, aliases: tuple[str, ...], found: ServerInfo) -> None:
    metrics.SERVER_UP.labels(server).set(1)
    metrics.SERVER_MEMORY.labels(server).set(found.used_bytes)
    metrics.SERVER_MEMORY_LIMIT.labels(server).set(found.limit_bytes)
    metrics.SERVER_CLIENTS.labels(server).set(found.clients)
    for number in {database(alias) for alias in aliases}:
        metrics.DATABASE_KEYS.labels(server, str(number)).set(found.keys.get(number, 0))


def visit() -> None:
    """
    Export what waits in the outbox, if it is this process' turn, note it for the charts, and have it looked after.

    Rows of a process that was killed have nobody else: relays sleep where their own process writes nothing.
    Cost:    one query a database in 15 s, uncounted, and one round trip.
    """
    now = time.monotonic()
    if _speaker.has_turn and now - _speaker.visited >= EVERY_SECONDS:
        _speaker.visited = now
        _look_at_the_outbox()
    try:
        _speaker.waiting.send()
    except CacheAway as error:
        logger.debug("What waits in the outbox is noted later: %s", error)


def _look_at_the_outbox() -> None:
    try:
        for alias in databases():
            waiting = overdue(connections[alias])
            metrics.OUTBOX_WAITING.labels(alias).set(waiting.count)
            metrics.RELAY_LAG.labels(alias).set(waiting.oldest_seconds)
            _speaker.waiting.note(alias, waiting.count, waiting.oldest_seconds, time.time())
            if waiting.count:
                wake(at_once=True)
    except Error as error:
        logger.info("What waits in the outbox is not known: %s", type(error).__name__)
    finally:
        connections.close_all()  # this thread's, which would else stay open for nothing


def withdraw() -> None:
    """Take back what this process exported of the servers: another one speaks of them now."""
    for gauge in metrics.OF_THE_SITE:
        for labels in [sample.labels for metric in gauge.collect() for sample in metric.samples]:
            gauge.labels(**labels).set(math.nan)  # in multi-process mode a file keeps what was set
        gauge.clear()


def leave() -> None:
    """Let another process have the turn at once. Called when this one ends."""
    if _speaker.has_turn:
        _speaker.has_turn = False
        try:
            _speaker.turn.give_up()
        except CacheAway as error:
            logger.debug("The turn ends by itself: %s", error)
