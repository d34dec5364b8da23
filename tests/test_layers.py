"""
The rooms of the package, and who may import whom: only what stands above, or before in the same line.

Move a room here when it moves in docs/architecture.md.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cacheadmin"

ROOMS = """
    exceptions signals conf
    encoding keys targets envelope arguments fragments preview texts
    tenancy connections scripts transactions
    stats store memory
    results reading scoped reclaiming invalidation
    backends middleware functions responses shortcuts
    models migrations rules by_model outbox writes
    dispatch progress warming browser overview prometheus doctor
    checks testing admin management templatetags
    apps
""".split()  # noqa: SIM905 - its shape is its meaning

IMPORTS_INSIDE_FUNCTIONS = {"apps"}
"""Rooms whose functions may import: `AppConfig.ready()` runs when models may first be imported."""

READ_DJANGO_SETTINGS = {"conf", "migrations"}
"""Migrations name AUTH_USER_MODEL, as makemigrations writes them."""

SPEAK_REDIS = {"connections", "scripts", "stats", "store", "backends"}

IMPORTED_BY_NOBODY = {"apps"}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module's dotted name below `cacheadmin` and its file; "" is the facade, `cacheadmin/__init__.py`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(node: ast.AST, module: str, path: Path) -> list[str]:
    """The absolute dotted names that an import statement names, `from a import b` as `a.b`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        source = node.module or ""
        if node.level:
            here = f"cacheadmin.{module}".rstrip(".").split(".")
            up = node.level - (path.name == "__init__.py")
            source = ".".join([*here[: len(here) - up], *([source] if source else [])])
        return [f"{source}.{alias.name}" for alias in node.names]
    return []


MODULES = dict(modules())
TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}
INSIDE = [module for module in MODULES if module]


def imports_of(module: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(TREES[module]):
        for name in imported(node, module, MODULES[module]):
            yield name, node.lineno


def room(name: str) -> str:
    return name.split(".")[0]


def test_every_module_is_in_a_room() -> None:
    assert {room(module) for module in INSIDE} <= set(ROOMS)


@pytest.mark.parametrize("module", INSIDE)
def test_imports_point_up_the_list(module: str) -> None:
    allowed = set(ROOMS[: ROOMS.index(room(module)) + 1]) - (IMPORTED_BY_NOBODY - {room(module)})
    wrong = [
        f"{MODULES[module].name}:{line} imports {name}"
        for name, line in imports_of(module)
        if room(name) == "cacheadmin" and [*name.split("."), ""][1] not in allowed
    ]
    assert wrong == []


def test_the_facade_imports_no_room_that_needs_the_app_registry() -> None:
    barred = set(ROOMS[ROOMS.index("checks") :]) | {"models", "migrations"}
    names = {name.split(".")[1] for name, _ in imports_of("") if room(name) == "cacheadmin"}
    assert names & barred == set()


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_imported_inside_a_function(module: str) -> None:
    functions = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lines = {node.lineno for f in functions for node in ast.walk(f) if isinstance(node, ast.Import | ast.ImportFrom)}
    assert room(module) in IMPORTS_INSIDE_FUNCTIONS or lines == set()


@pytest.mark.parametrize("module", MODULES)
def test_only_conf_reads_the_settings(module: str) -> None:
    reads = [line for name, line in imports_of(module) if name.startswith(("django.conf.settings", "django.conf.Lazy"))]
    whole = [line for name, line in imports_of(module) if name in ("django.conf", "django.conf.*")]
    assert room(module) in READ_DJANGO_SETTINGS or reads + whole == []


@pytest.mark.parametrize("module", MODULES)
def test_only_a_few_rooms_speak_redis(module: str) -> None:
    clients = [f"line {line}: {name}" for name, line in imports_of(module) if room(name) in ("redis", "django_redis")]
    assert room(module) in SPEAK_REDIS or clients == []


def test_the_walk_sees_each_form_of_import() -> None:
    source = "import a.b\nfrom a import c, d\nfrom . import e\nfrom .f import g\nfrom .. import h\n"
    names = [name for node in ast.parse(source).body for name in imported(node, "store.redis", Path("redis.py"))]
    assert names == ["a.b", "a.c", "a.d", "cacheadmin.store.e", "cacheadmin.store.f.g", "cacheadmin.h"]
    [node] = ast.parse("from .base import x").body
    assert imported(node, "store", Path("__init__.py")) == ["cacheadmin.store.base.x"]
