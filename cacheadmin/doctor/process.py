"""Checks of how the site runs: tenants and middleware, cached functions, several workers and their metrics."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final

from django.apps import apps
from django.core.signals import request_started
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cacheadmin.conf import in_tests, middleware
from cacheadmin.functions import registry
from cacheadmin.middleware import TenantMiddleware
from cacheadmin.overview.fetching import FetchFailed
from cacheadmin.tenancy import ForeignKeyTenancy, Tenancy, tenancy

from .facts import Facts
from .registry import Finding, check

OURS: Final = "cacheadmin.middleware.TenantMiddleware"
AUTHENTICATION: Final = "django.contrib.auth.middleware.AuthenticationMiddleware"
MULTIPROC: Final = "PROMETHEUS_MULTIPROC_DIR"

SERVERS: Final = ("gunicorn", "uvicorn", "hypercorn", "granian")
"""Programs whose option for the number of processes is known."""

WORKERS: Final = re.compile(r"(?:^|\s)(?:-w|--workers)[ =]?(\d+)")


# --- whose entries --------------------------------------------------------------------------------------------------


@check("W012", gettext_lazy("It is plain whose entries each cached function keeps."))
def functions_know_their_tenant(_facts: Facts) -> Iterator[Finding]:
    """Report functions whose entries are shared by all tenants whenever none is active."""
    if not tenancy().has_tenants:
        return
    for function in sorted(registry.values(), key=lambda known: known.name):
        if function.may_fall_back:
            yield Finding(
                _("%(function)s does not say whose its entries are.") % {"function": function.name},
                where=function.name,
                why=_("Called while no tenant is active, it keeps one value for everybody."),
                fix=_("Give it an argument tenant_id, decorate it with cache_tenant_query, or say shared=True."),
            )


@check("W036", gettext_lazy("Each request's tenant is made the active one."), at_start=True)
def requests_have_a_tenant(_facts: Facts) -> Iterator[Finding]:
    """Report that TenantMiddleware is missing, or stands where nobody is logged in yet."""
    site = tenancy()
    if not site.has_tenants or type(site).current is not Tenancy.current:
        return  # no tenants, or it finds the active one by itself
    paths = middleware()
    ours = [at for at, path in enumerate(paths) if _is_ours(path)]
    if not ours:
        yield Finding(
            _("TenantMiddleware is not in MIDDLEWARE."),
            where="MIDDLEWARE",
            why=_(
                "No tenant is active in a view: functions without an argument tenant_id keep one value for everybody, "
                "fragments of templates that do not know the request are rendered each time, and those of Django's "
                "own tag belong to nobody, so that no rule drops them."
            ),
            fix=f'MIDDLEWARE = [\n    …,\n    "{AUTHENTICATION}",\n    "{OURS}",\n]',
        )
    elif AUTHENTICATION in paths[ours[0] :] and type(site).from_request in (
        Tenancy.from_request,
        ForeignKeyTenancy.from_request,
    ):
        yield Finding(
            _("TenantMiddleware stands above the middleware that logs in."),
            where="MIDDLEWARE",
            why=_("The tenant is looked for in request.user, which is not there yet: nobody has one."),
            fix=f'    "{AUTHENTICATION}",\n    "{OURS}",',
        )


def _is_ours(path: str) -> bool:
    try:
        found = import_string(path)
    except ImportError:
        return False  # Django says so with the first request
    return isinstance(found, type) and issubclass(found, TenantMiddleware)


@check("W038", gettext_lazy("Functions of tenants are known to be of tenants."))
def tenants_are_configured(_facts: Facts) -> Iterator[Finding]:
    """Report functions with a tenant's id among their arguments on a site that says that it has no tenants."""
    if tenancy().has_tenants:
        return
    keyed = sorted(f"{f.name}({f.tenant_parameter})" for f in registry.values() if f.tenant_parameter is not None)
    if keyed:
        yield Finding(
            _("TENANCY says that there are no tenants, and cached functions have some."),
            where=", ".join(keyed[:5]) + (" …" if len(keyed) > 5 else ""),
            why=_("Rules and “for all tenants” reach shared data only: entries of tenants stay until their timeout."),
            fix=(
                "from cacheadmin.tenancy import ForeignKeyTenancy\n\n\nclass Tenancy(ForeignKeyTenancy):\n"
                '    model = "shop.Tenant"\n\n\nCACHEADMIN = {"TENANCY": "shop.cache.Tenancy"}'
            ),
        )


# --- several workers ------------------------------------------------------------------------------------------------

_served: dict[str, bool] = {}
"""`several`: whether the server that this process answers for says that it has several processes."""


def note_server(environ: dict[str, Any] | None = None, **_kwargs: Any) -> None:
    """Note what the first request says of its server (PEP 3333, `wsgi.multiprocess`), and listen no longer."""
    request_started.disconnect(dispatch_uid="cacheadmin.doctor")
    _served["several"] = bool((environ or {}).get("wsgi.multiprocess"))


request_started.connect(note_server, dispatch_uid="cacheadmin.doctor")


def has_several_workers() -> bool:
    """Say whether this site runs in several processes, as far as this one can know."""
    if _served.get("several") and not in_tests():  # Django's test client says so of itself
        return True
    # ASGI says nothing of it. A worker has the command line of its server, forked (gunicorn) or spawned (uvicorn).
    program, *line = getattr(sys, "argv", None) or [""]
    path = PurePath(program)
    is_known = (path.parent.name if path.stem == "__main__" else path.stem) in SERVERS
    for words in (" ".join(line) if is_known else "", os.environ.get("GUNICORN_CMD_ARGS", "")):
        if asked := WORKERS.search(words):
            return int(asked[1]) > 1
    told = os.environ.get("WEB_CONCURRENCY", "")
    return told.isdigit() and int(told) > 1


@check("W037", gettext_lazy("The metrics of all workers are added up."), at_start=True)
def metrics_are_of_all_workers(_facts: Facts) -> Iterator[Finding]:
    """Report several workers without PROMETHEUS_MULTIPROC_DIR, and a directory that is not there."""
    if not apps.is_installed("django_prometheus"):
        return
    path = os.environ.get(MULTIPROC) or os.environ.get(MULTIPROC.lower())
    if path and not os.path.isdir(path):
        yield Finding(
            _("The directory in %(name)s does not exist.") % {"name": MULTIPROC},
            where=path,
            why=_("No worker can keep its metrics."),
            fix=f'mkdir -p "{path}"',
        )
    elif not path and has_several_workers():
        yield Finding(
            _("Several workers run, and %(name)s is not set.") % {"name": MULTIPROC},
            where=_("environment"),
            why=_(
                "Each scrape meets one worker by chance and reads its counts alone: rates jump, and most is missing."
            ),
            fix=(
                f"export {MULTIPROC}=/run/site/metrics  "
                + _("# before Python starts; emptied at each start")
                + "\n# gunicorn.conf.py\nfrom prometheus_client import multiprocess\n\n\n"
                "def child_exit(server, worker):\n    multiprocess.mark_process_dead(worker.pid)"
            ),
        )


@check("W048", gettext_lazy("Prometheus knows this site's counters."))
def prometheus_knows_the_site(facts: Facts) -> Iterator[Finding]:
    """Report that the server of PROMETHEUS_URL does not answer, or has no series of ours with PROMETHEUS_LABELS."""
    scraped = facts.scraped
    if isinstance(scraped, FetchFailed):
        yield Finding(
            str(scraped),
            where="PROMETHEUS_URL",
            why=_("The charts are those of the roll-ups, and each page may wait for up to 2 seconds."),
            fix=_("Correct PROMETHEUS_URL, or take it out."),
        )
    elif scraped == 0:
        yield Finding(
            _("Prometheus has no series cacheadmin_reads_total of this site."),
            where="PROMETHEUS_LABELS",
            why=_("Nothing is drawn, and queries and alerts find nothing."),
            fix=_("Scrape /metrics, and give PROMETHEUS_LABELS the labels of that job:")
            + '\nCACHEADMIN = {"PROMETHEUS_LABELS": {"job": "shop"}}',
        )
