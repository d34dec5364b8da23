"""
One peer in a process of its own, told what to do by lines of JSON: `python -m bench.worker <module of its adapter>`.

    {"make": "hit", "as": "a", "with": {"size": 1000}}   build a way to do something; answers whether there is one
    {"time": 100, "as": "a"}                             call it so often; answers seconds a call
    {"spend": 100, "as": "a"}                            the same; answers seconds of this process' CPU a call
    {"trips": 1, "as": "a"}                              the same; answers how often something was sent to Redis
    {"ask": "late"}                                      let the adapter find something out; answers what it says

Every answer is one line: {"said": …} or {"why": "…"}. Whatever the peer prints goes to the error output.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from typing import Any

if os.environ.get("BENCH_WITHOUT_HIREDIS"):
    sys.modules["hiredis"] = None  # type: ignore[assignment] # redis-py then parses in Python

import redis.connection

sent = 0
"""How often this process' main thread has sent something to Redis: a command or a pipeline each."""


def count_round_trips() -> None:
    """Count what leaves through any connection of redis-py, whichever pool or client it belongs to."""
    ours = threading.get_ident()
    original = redis.connection.AbstractConnection.send_packed_command

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        global sent
        sent += threading.get_ident() == ours  # what is sent in the background, nobody waits for
        return original(self, *args, **kwargs)

    redis.connection.AbstractConnection.send_packed_command = counted  # type: ignore[method-assign]


def obey(adapter: Any, ways: dict[str, Any], order: dict[str, Any]) -> Any:
    """Carry one order out and return what to answer."""
    given = order.get("with", {})
    if "make" in order:
        made = getattr(adapter, f"way_{order['make']}", None)
        if made is not None:
            ways[order["as"]] = made(**given)
        return made is not None
    if "ask" in order:
        asked = getattr(adapter, f"ask_{order['ask']}", None)
        return None if asked is None else asked(**given)
    way = ways[order["as"]]
    if "trips" in order:
        before = sent
        for _ in range(order["trips"]):
            way()
        return sent - before
    calls, clock = (order["spend"], time.process_time) if "spend" in order else (order["time"], time.perf_counter)
    begun = clock()
    for _ in range(calls):
        way()
    return (clock() - begun) / calls


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    adapter = importlib.import_module(sys.argv[1]).Adapter()
    adapter.start()
    if not os.environ.get("BENCH_UNCOUNTED"):
        count_round_trips()
    print(json.dumps({"said": adapter.versions()}), file=answers)
    ways: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            print(json.dumps({"said": obey(adapter, ways, json.loads(line))}), file=answers)
        except Exception as error:
            print(json.dumps({"why": f"{type(error).__name__}: {error}"}), file=answers)
    os._exit(0)  # no thread of a peer may keep us


if __name__ == "__main__":
    main()
