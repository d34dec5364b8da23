"""Read an entry or compute it: the miss path of the protocol, once for functions, views and template fragments."""

from cacheadmin.reading.calls import Call, Options, Pace, notes
from cacheadmin.reading.drivers import attempt_async, get, get_async, run, run_async
from cacheadmin.reading.nesting import OutsideComputation
from cacheadmin.reading.steps import COMPUTE, attempt, miss, refreshing

__all__ = [
    "COMPUTE",
    "Call",
    "Options",
    "OutsideComputation",
    "Pace",
    "attempt",
    "attempt_async",
    "get",
    "get_async",
    "miss",
    "notes",
    "refreshing",
    "run",
    "run_async",
]
