"""What holds for every command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import find_commands, load_command_class

import cacheadmin
from cacheadmin.management import base

DOCS = (Path(__file__).parent.parent / "docs" / "commands.md").read_text()
COMMANDS = find_commands(str(Path(cacheadmin.__file__).parent / "management"))
DJANGO_OPTIONS = {"--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback", "--no-color"}
DJANGO_OPTIONS |= {"--force-color", "--skip-checks"}


def parsers(parser):
    """Yield a parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if hasattr(action, "_name_parser_map"):
            for sub in action.choices.values():
                yield from parsers(sub)


def options(name):
    parser = load_command_class("cacheadmin", name).create_parser("manage.py", name)
    found = {text for each in parsers(parser) for action in each._actions for text in action.option_strings}
    return {text for text in found if text.startswith("--")} - DJANGO_OPTIONS


def section(name):
    return DOCS.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]


def test_there_are_eight():
    assert sorted(COMMANDS) == [
        "cache_browse",
        "cache_doctor",
        "cache_invalidate",
        "cache_relay",
        "cache_rules",
        "cache_stats",
        "cache_sweep",
        "cache_warm",
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_is_documented_and_no_other(name):
    documented = set(re.findall(r"`(--[a-z-]+)", section(name)))
    documented |= set(re.findall(r" (--[a-z-]+)", "".join(re.findall(r"```console.*?```", section(name), re.DOTALL))))
    others = {option for other in COMMANDS for option in options(other)} | {"--natural-primary"}
    assert options(name) <= documented
    assert documented <= others


@pytest.mark.parametrize("name", COMMANDS)
def test_each_speaks_json(name):
    assert "--format" in options(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_broken_urlconf_keeps_none_from_starting(name):
    assert not load_command_class("cacheadmin", name).requires_system_checks


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (1, "100%"), (0, "0%"), (0.9999, ">99.9%"), (0.0001, "<0.1%"), (0.934, "93.4%")],
)
def test_a_percentage_is_never_rounded_to_all_or_nothing(value, shown):
    assert base.percent(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.0004, "0.4 ms"),
        (0.188, "188 ms"),
        (8.2, "8.2 s"),
        (48, "48 s"),
        (252, "4 min 12 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_read_well(value, shown):
    assert base.seconds(value) == shown


def test_control_characters_are_escaped_and_line_breaks_kept():
    assert base.printable("a\x1b[2J\x85\u202e\nb\xa0c é") == "a\\x1b[2J\\x85\\u202e\nb c é"


def test_a_user_without_a_name_is_a_number(monkeypatch):
    def nobody():
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(base.getpass, "getuser", nobody)
    assert re.fullmatch(r"\d+@.*", base.whoami())


def test_a_reader_that_has_seen_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "shop", "cache_rules"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root / 'tests'}{os.pathsep}{root}"},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (base.UNHEARD, "")
