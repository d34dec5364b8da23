"""The documentation: its examples run against the shop, everything that has a name is named, links lead somewhere."""

from __future__ import annotations

import copy
import datetime as dt
import re
import shlex
import sys
import unittest
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.management import CommandError, get_commands, load_command_class
from django.template import Context, Template
from django.test import RequestFactory, override_settings
from django.utils.module_loading import import_string
from prometheus_client import REGISTRY
from test_layers import ROOMS

import cacheadmin
from cacheadmin import exceptions, functions, rules, tenancy
from cacheadmin.conf import config, problems, setting_names
from cacheadmin.doctor import checks
from cacheadmin.models import Console, InvalidationRule
from cacheadmin.signals import cache_read
from shop.management.commands.seed_shop import fill
from shop.models import Branch, Customer, InventoryItem, Tenant, User

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}

BLOCK = re.compile(r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=fence) *$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(?P<text>.+)$", re.MULTILINE)
LABEL = re.compile(r"^\((?P<label>[\w-]+)\)=$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    info: str
    code: str

    def compiled(self) -> Any:
        """Compile it so that a traceback names page and line."""
        return compile("\n" * (self.line - 1) + self.code, str(PAGES[self.page]), "exec")


def blocks(page: str, *infos: str) -> list[Block]:
    text = PAGES[page].read_text()
    found = [
        Block(page, text.count("\n", 0, match.start("code")) + 1, match["info"].strip(), match["code"])
        for match in BLOCK.finditer(text)
    ]
    return [block for block in found if block.info in infos]


def prose(page: str) -> str:
    """Return a page without its blocks of code."""
    return BLOCK.sub("", PAGES[page].read_text())


def pages_with(*infos: str) -> list[str]:
    return [page for page in PAGES if blocks(page, *infos)]


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    known = {"", "python", "python settings", "django", "console", "promql", "{toctree}"}
    for page, path in PAGES.items():
        infos = {match["info"].strip() for match in BLOCK.finditer(path.read_text())}
        assert infos <= known, page


# --- examples -------------------------------------------------------------------------------------------------------


@pytest.fixture
def given(db: None) -> Iterator[dict[str, Any]]:
    """What examples may use without saying where it comes from: docs/development.md lists it."""
    fill(scale=0.01, random_seed=7)
    ruby, gold = Tenant.objects.get(slug="ruby"), Tenant.objects.get(slug="gold")
    item = InventoryItem.objects.filter(tenant=ruby).select_related("branch", "category").first()
    assert item is not None
    request = RequestFactory().get("/api/products/")
    request.user = User.objects.get(username="ruby")
    known = dict(functions.registry)
    with tenancy.tenancy().activate(None):
        yield {
            "tenant_id": ruby.pk,
            "other_tenant_id": gold.pk,
            "branch_id": item.branch_id,
            "customer_id": Customer.objects.filter(tenant=ruby).values_list("pk", flat=True)[0],
            "start_date": dt.date(2024, 1, 1),
            "end_date": dt.date(2024, 12, 31),
            "request": request,
            "an_item": {
                "tenant": ruby,
                "branch": Branch.objects.filter(tenant=ruby).first(),
                "category": item.category,
                "sku": "RU-NEW",
                "name": "A new ring",
                "weight": 3,
                "price": 120,
            },
            "menu_items": [{"url": "/", "name": "Shops"}],
            "items": InventoryItem.objects.filter(tenant=ruby)[:3],
            "shop": ruby,
            "LANGUAGE_CODE": "en",
            "today": dt.date(2024, 6, 1),
        }
    functions.registry.clear()
    functions.registry.update(known)


@pytest.fixture
def page_module(request: pytest.FixtureRequest, given: dict[str, Any]) -> Iterator[ModuleType]:
    """The module that a page's examples are: it is there to be imported while they run."""
    module = ModuleType("docs_" + re.sub(r"\W", "_", request.node.callspec.params["page"]))
    module.__dict__.update(given)
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_examples_run_one_after_the_other(page: str, backend: str, page_module: ModuleType) -> None:
    assert caches["query"].__class__.__module__.startswith("django_prometheus" if backend == "stock" else "cacheadmin")
    for block in blocks(page, "python"):
        exec(block.compiled(), page_module.__dict__)
    for rule in page_module.__dict__.get("rules", ()):
        assert rules.validate(rule) == []
    _run_test_cases(page_module)


def _run_test_cases(module: ModuleType) -> None:
    cases = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    suite = unittest.TestSuite(
        unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in cases if issubclass(case, unittest.TestCase)
    )
    wanted = suite.countTestCases()
    result = suite.run(unittest.TestResult())
    assert result.testsRun == wanted
    assert [text for _, text in result.errors + result.failures] == []


@pytest.mark.parametrize("page", pages_with("django"))
def test_template_examples_are_cached(page: str, given: dict[str, Any]) -> None:
    seen: list[str] = []

    def note(*, result: str, **_: Any) -> None:
        seen.append(result)

    cache_read.connect(note, weak=False)
    try:
        for block in blocks(page, "django"):
            template = Template(block.code)
            first = template.render(Context(given))
            computed, seen[:] = list(seen), []
            assert template.render(Context(given)) == first, block
            assert set(computed) <= {"miss"}, block
            assert seen == ["hit"] * len(computed), block
            assert computed or "{% load cache %}" in block.code, block
            seen.clear()
    finally:
        cache_read.disconnect(note)


def settings_of(block: Block) -> dict[str, Any]:
    """Run an example of settings and return what it sets, beside the shop's."""
    names = ("INSTALLED_APPS", "MIDDLEWARE")
    before: dict[str, Any] = {name: list(getattr(settings, name)) for name in names}
    before["INSTALLED_APPS"].remove("cacheadmin")
    before["MIDDLEWARE"].remove("cacheadmin.middleware.TenantMiddleware")
    before["CACHES"] = {alias: options | {"OPTIONS": {}} for alias, options in settings.CACHES.items()}
    namespace = copy.deepcopy(before)
    exec(block.compiled(), namespace)
    return {name: value for name, value in namespace.items() if name.isupper() and value != before.get(name)}


@pytest.mark.parametrize(
    "block", [b for page in PAGES for b in blocks(page, "python settings")], ids=lambda b: f"{b.page}:{b.line}"
)
def test_examples_of_settings_are_sound(block: Block) -> None:
    found = settings_of(block)
    assert found
    for name in found.pop("MIDDLEWARE", []):
        import_string(name)
    found.pop("INSTALLED_APPS", None)
    with override_settings(**found):
        assert problems() == []
        assert config().aliases == ("query", "default", "template", "api")
        for alias in config().aliases:
            assert caches[alias]
        assert tenancy.tenancy()
        assert [f for check in checks() if check.at_start and ".E" in check.id for f in check.find()] == []


def commands_of(page: str) -> Iterator[tuple[int, str]]:
    for block in blocks(page, "console"):
        for number, line in enumerate(block.code.splitlines(), block.line):
            if match := re.match(r"\$ (?:\w+=\S+ )*python manage\.py (.+)", line):
                yield number, match[1]


def test_commands_are_called_with_options_that_they_have() -> None:
    known = get_commands()
    for page in PAGES:
        for line, text in commands_of(page):
            name, *arguments = shlex.split(text, comments=True)
            parser = load_command_class(known[name], name).create_parser("manage.py", name)
            try:
                parser.parse_args(arguments)
            except CommandError as error:
                pytest.fail(f"{page}:{line}: {text}: {error}")


# --- everything has its place ---------------------------------------------------------------------------------------


def names_missing_from(page: str, names: Any) -> list[str]:
    text = PAGES[page].read_text()
    return [name for name in names if not re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text)]


def test_every_setting_has_its_row_with_its_default() -> None:
    assert names_missing_from("docs/settings.md", setting_names()) == []
    rows = dict(
        re.findall(r"^\| `([A-Z_]+)` \| [^|]+ \| ([^|]+) \|", PAGES["docs/settings.md"].read_text(), re.MULTILINE)
    )
    assert set(rows) == set(setting_names())
    for field in fields(type(config())):  # as they are written: tests have others
        default = field.default if field.default_factory is MISSING else field.default_factory()
        name, shown = field.name.upper(), rows[field.name.upper()].strip()
        if name not in ("ALIASES", "STATS_ALIAS"):  # their defaults depend on CACHES
            assert shown == (f'`"{default}"`' if isinstance(default, str) else f"`{default!r}`"), name


def test_every_public_name_is_in_the_api() -> None:
    assert names_missing_from("docs/api.md", cacheadmin.__all__) == []


def test_every_error_is_in_the_api() -> None:
    errors = [name for name, value in vars(exceptions).items() if isinstance(value, type)]
    assert names_missing_from("docs/api.md", set(errors) - {"CacheSkipped"}) == []


def test_every_tenancy_class_is_in_the_api() -> None:
    found = [n for n, v in vars(tenancy).items() if isinstance(v, type) and issubclass(v, tenancy.Tenancy)]
    assert len(found) == 5
    assert names_missing_from("docs/api.md", found) == []


def test_every_option_of_the_decorators_is_in_the_api() -> None:
    options = functions.CachedFunction.__init__.__annotations__.keys() - {"function", "needs_tenant", "return"}
    assert names_missing_from("docs/api.md", options) == []


def test_every_field_of_a_rule_and_kind_of_target_is_on_the_page_of_rules() -> None:
    fields = {field.name for field in InvalidationRule._meta.get_fields()} - {"id"}
    assert names_missing_from("docs/rules.md", fields | set(rules.KINDS) | set(rules.EVENTS)) == []


def test_every_command_is_on_their_page() -> None:
    ours = [name for name, app in get_commands().items() if app == "cacheadmin"]
    assert len(ours) == 8
    assert names_missing_from("docs/commands.md", ours) == []


def test_every_check_is_on_their_page() -> None:
    assert names_missing_from("docs/checks.md", [check.id for check in checks()]) == []


def test_every_permission_is_on_the_page_of_the_admin() -> None:
    names = [f"cacheadmin.{name}" for model in (Console, InvalidationRule) for name, _ in model._meta.permissions]
    names += [f"cacheadmin.{act}_invalidationrule" for act in InvalidationRule._meta.default_permissions]
    assert names_missing_from("docs/admin.md", names) == []


def test_every_metric_is_on_their_page_and_no_other() -> None:
    text = PAGES["docs/metrics.md"].read_text()
    exported = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in REGISTRY.collect()
        if metric.name.startswith(("cacheadmin_", "django_cache_"))
    }
    invented = {"django_cache_hits_total", "django_cache_misses_total"}
    assert not exported & invented
    assert set(re.findall(r"\b(?:cacheadmin|django_cache)_[a-z_]+\b", text)) == exported | invented


def test_every_target_of_make_is_on_the_page_of_development() -> None:
    targets = re.findall(r"^([a-z-]+):.*?## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert names_missing_from("docs/development.md", [f"make {target}" for target in set(targets) - {"help"}]) == []


def test_the_rooms_are_those_that_imports_keep_to() -> None:
    section = PAGES["docs/architecture.md"].read_text().split("## Rooms", 1)[1].split("\n## ", 1)[0]
    lines = [re.split(r" {4,}", line.strip())[0] for line in section.splitlines() if line.startswith("    ")]
    assert " ".join(lines).split() == ROOMS


def test_every_fixture_of_the_examples_is_on_the_page_of_development(given: dict[str, Any]) -> None:
    assert names_missing_from("docs/development.md", given) == []


# --- links ----------------------------------------------------------------------------------------------------------


def anchors(page: str) -> set[str]:
    """Return what a link to this page may name: its headings as GitHub and MyST spell them, and explicit labels."""
    text = prose(page)
    headings = (re.sub(r"[^\w\s-]", "", match["text"].lower()).strip() for match in HEADING.finditer(text))
    return {re.sub(r"\s", "-", heading) for heading in headings} | {m["label"] for m in LABEL.finditer(text)}


def test_links_lead_somewhere() -> None:
    broken = []
    for page, path in PAGES.items():
        for match in LINK.finditer(prose(page)):
            file, _, anchor = match["target"].partition("#")
            if ":" in file:
                continue
            target = (path.parent / file).resolve() if file else path
            name = target.relative_to(ROOT).as_posix()
            if not target.exists() or (anchor and anchor not in anchors(name)):
                broken.append(f"{page}: {match['target']}")
    assert broken == []


def test_every_picture_is_shown_and_not_too_large() -> None:
    shown = {match["target"].rpartition("/")[2] for page in PAGES for match in LINK.finditer(prose(page))}
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert {path.name for path in pictures} <= shown
    assert [path.name for path in pictures if path.stat().st_size > 400_000] == []


def test_the_readme_fits_on_a_screen_or_two() -> None:
    assert len(PAGES["README.md"].read_text().splitlines()) <= 90
