"""Whatever speaks of the database holds on PostgreSQL too: the same tests once more, and what only it can do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from postgres import Postgres

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

FILES = {
    "test_writes": 250,
    "test_writes_unusual": 60,
    "test_transactions": 25,
    "test_outbox": 25,
    "test_outbox_held": 12,
    "test_texts": 28,
    "test_dispatch": 10,
    "test_races": 60,
    "test_admin_unmigrated": 12,
    "only_on_postgres": 32,
    "only_on_postgres_by_hand": 33,
}
"""Test files that run on PostgreSQL, the last only there, and a few tests fewer than each of them holds."""

# One makes a file of SQLite for itself; the other's workers keep nothing in a database.
ELSEWHERE = "not patient_writer_of_sqlite and not eight_processes"


@pytest.mark.parametrize(
    "files",
    [
        ["test_writes", "test_writes_unusual"],
        ["test_transactions", "test_outbox", "test_outbox_held", "test_texts", "test_dispatch", "test_races"],
        ["only_on_postgres", "only_on_postgres_by_hand", "test_admin_unmigrated"],
    ],
    ids=["writes", "transactions", "what only it has"],
)
def test_what_speaks_of_the_database_holds_on_postgresql(files: list[str], postgres: Postgres) -> None:
    command = [sys.executable, *["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "quick_flush", "-k"], ELSEWHERE]
    outer = ("PYTEST_", "COV_", "COVERAGE_", "REDIS_URL", "DJANGO_SETTINGS_MODULE")
    here = {"SHOP_DB": postgres.create(), "PYTHONPATH": os.fspath(ROOT / "tests")}
    ran = subprocess.run(
        [*command, *(f"tests/{name}.py" for name in files)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith(outer)} | here,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-10_000:] + ran.stderr[-2_000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed
    assert int(passed[1]) >= sum(FILES[name] for name in files)
