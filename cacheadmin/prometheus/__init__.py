"""The counters as Prometheus metrics: plain ones at module level, so that multi-process mode adds all workers up.

Nothing is counted here: each flush of the recorder is added, so these numbers and the roll-ups agree. Labels come from
bounded sets and are never a key. django-prometheus' own counters are fed by the backend.
"""

from __future__ import annotations

import atexit

from django.core.signals import request_started

from ..stats import recorder
from . import counting, gates, names, servers

__all__ = ["install"]


def install() -> None:
    """Export the recorder's flushes from now on. Called when Django starts; again is harmless."""
    if counting.count in recorder.sinks:
        return
    recorder.sinks.append(counting.count)
    recorder.watchers += [names.tenants.refresh, gates.look, servers.look]
    recorder.visitors.append(servers.visit)
    request_started.connect(servers.serves_requests, dispatch_uid="cacheadmin.prometheus")
    atexit.register(servers.leave)
