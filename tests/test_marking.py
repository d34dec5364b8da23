"""Rows that were delivered are marked done in batches, by a thread that no request waits for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SAVES = 30


@pytest.fixture(params=["sqlite", "postgres"])
def counted(request, redis_server, tmp_path):
    """`counted()` saves rows in another process and returns what its threads sent to the database."""

    def run(*options):
        database = "sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres").create()
        url = redis_server.url.rpartition("/")[0]
        environment = {k: v for k, v in os.environ.items() if k not in ("DJANGO_SETTINGS_MODULE", "REDIS_URL")}
        ran = subprocess.run(
            [sys.executable, TESTS / "counted_statements.py", url, tmp_path, database, str(SAVES), *options],
            env=environment | {"PYTHONPATH": os.pathsep.join(map(os.fspath, (TESTS, TESTS.parent)))},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return run


def after_commit(statements):
    return statements[statements.index("COMMIT") + 1 :]


def test_a_request_sends_nothing_after_its_commit_and_rows_are_marked_together(counted):
    told = counted()
    assert len(told["requests"]) == SAVES
    for statements in told["requests"]:
        # Once a second, on a write, each process looks whether rules were edited, and reads them if they were.
        sent = [text for text in statements if "cacheadmin_ruleversion" not in text and "invalidationrule" not in text]
        assert after_commit(sent) == []
        written = [word for text in sent if (word := text.split()[0]) in ("INSERT", "UPDATE", "DELETE", "SELECT")]
        assert written == ["UPDATE", "INSERT"], "the row, and its intent"
    assert told["rows"] == SAVES + 1
    assert told["marks_by_requests"] == 0
    assert 1 <= told["marks"] <= SAVES / 3


def test_where_there_is_no_thread_each_request_marks_its_own(counted):
    """So the count above would see it."""
    told = counted("marked at once")
    assert all("cacheadmin_intent" in " ".join(after_commit(statements)) for statements in told["requests"])
    assert told["marks_by_requests"] == told["marks"] == SAVES
