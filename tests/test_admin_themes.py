"""The console where the admin wears another look: unfold, grappelli, jazzmin. Each in a process of its own."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["unfold", "grappelli", "jazzmin"])
def test_pages_charts_and_buttons_work_under_another_look(theme, require, redis_server):
    if find_spec(theme) is None:
        pytest.skip(f"{theme} is not installed") if not os.environ.get("CI") else pytest.fail(f"{theme} is missing")
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "django", "test", "themed", "--settings", "themed_settings"],
        cwd=TESTS,
        env={
            **os.environ,
            "THEME": theme,
            "CHROMIUM": require("chromium"),
            "REDIS_URL": redis_server.url,
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-6000:]
    assert "Ran 2 tests" in run.stderr
