"""What people install: sdist and wheel hold every file that the package reads, and a bare project runs on them."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections import Counter
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import cacheadmin

ROOT = Path(__file__).resolve().parent.parent
DATA_FOLDERS = tuple(f"cacheadmin/{name}/" for name in ("locale", "lua", "static"))

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command away from the checkout's own paths; return what it printed."""
    inherited = {name: os.environ[name] for name in os.environ.keys() - {"PYTHONPATH", "DJANGO_SETTINGS_MODULE"}}
    result = subprocess.run(
        list(map(os.fspath, command)),
        cwd=cwd,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def tracked_files() -> list[str]:
    """What git knows, so that a stray file in the checkout can neither hide nor cause a fault."""
    listed = run("git", "-c", "safe.directory=*", "ls-files", "-z", cwd=ROOT).split("\0")
    return [name for name in listed if name and (ROOT / name).exists()]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked files alone, symlinks kept."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in tracked_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    return copy


@pytest.fixture(scope="session")
def distributions(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The sdist, the wheel built from that sdist, and what the builder said."""
    dist = tmp_path_factory.mktemp("dist")
    log = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, checkout, cwd=dist)
    [sdist], [wheel] = dist.glob("*.tar.gz"), dist.glob("*.whl")
    return sdist, wheel, log


@pytest.fixture(scope="session")
def wheel_files(distributions: tuple[Path, Path, str]) -> list[str]:
    with zipfile.ZipFile(distributions[1]) as archive:
        return archive.namelist()


def data_files() -> set[str]:
    """The files the package needs beside its modules, as the package sees them."""
    package = {name for name in tracked_files() if name.startswith(DATA_FOLDERS)}
    return package | {f"cacheadmin/{name}" for name in tracked_files() if name.startswith("templates/")}


def test_templates_are_a_symlink_in_the_checkout() -> None:
    assert os.readlink(ROOT / "cacheadmin" / "templates") == os.path.join("..", "templates")


def test_the_wheel_holds_every_module_and_data_file_once(wheel_files: list[str]) -> None:
    modules = {
        name for name in tracked_files() if name.startswith("cacheadmin/") and name.endswith((".py", "py.typed"))
    }
    inside = Counter(name for name in wheel_files if ".dist-info/" not in name)
    assert set(inside) == modules | data_files()
    assert set(inside.values()) == {1}


@pytest.mark.parametrize("ending", [".html", ".lua", ".css", ".js", ".po", ".mo", "py.typed"])
def test_the_wheel_holds_each_kind_of_file(wheel_files: list[str], ending: str) -> None:
    assert [name for name in wheel_files if name.endswith(ending)] != []


def test_the_wheel_holds_the_licence_and_says_what_it_is(
    distributions: tuple[Path, Path, str], wheel_files: list[str]
) -> None:
    with zipfile.ZipFile(distributions[1]) as archive:
        [name] = [name for name in wheel_files if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
    assert f"Name: django-cacheadmin\nVersion: {cacheadmin.__version__}\n" in metadata
    assert "License-Expression: BSD-3-Clause\n" in metadata
    assert [name for name in wheel_files if name.endswith(".dist-info/licenses/LICENSE")] != []


def test_the_sdist_holds_templates_once_and_no_tests(distributions: tuple[Path, Path, str]) -> None:
    with tarfile.open(distributions[0]) as archive:
        files = [member.name.split("/", 1)[1] for member in archive if not member.isdir()]
        assert [member.name for member in archive if member.issym() or member.islnk()] == []
    assert {name for name in files if "templates/" in name} == {name for name in data_files() if "templates/" in name}
    assert [name for name in files if name.startswith(("tests/", "docs/"))] == []
    assert {"CHANGELOG.md", "LICENSE", "pyproject.toml", "setup.cfg"} <= set(files)


def test_the_build_warns_of_nothing_in_our_files(distributions: tuple[Path, Path, str]) -> None:
    log = distributions[2]
    complaints = ("absent from the `packages`", "Deprecat", "cannot be found", "error:")
    assert [line for line in log.splitlines() if any(text in line for text in complaints)] == []


def test_nothing_that_cacheadmin_requires_bounds_django() -> None:
    """Installing us must not move a site's Django: neither we nor the django-prometheus we allow bound it."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = {r.name: r for r in map(Requirement, config["options"]["install_requires"].split("\n")[1:])}
    assert str(required["Django"].specifier) == ">=5.2"
    prometheus = required["django-prometheus"].specifier
    assert [version for version in ("2.4.0", "2.4.1", "2.5.0") if version in prometheus] == ["2.4.0"]


TWO_LINES = """
INSTALLED_APPS += ["cacheadmin"]
CACHES = {"default": {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}
"""

USE = """
from pathlib import Path
import cacheadmin
assert Path(cacheadmin.__file__).is_relative_to(SITE), cacheadmin.__file__
import django
django.setup()
from django.contrib.staticfiles import finders
from django.template.loader import get_template
folder = Path(cacheadmin.__file__).parent
names = [p.relative_to(folder / "templates").as_posix() for p in sorted(folder.glob("templates/**/*.html"))]
assert [get_template(name).origin.name for name in names] == [str(folder / "templates" / name) for name in names]
for path in folder.glob("static/**/*"):
    assert path.is_dir() or finders.find(path.relative_to(folder / "static").as_posix()), path
print(len(names), "templates")
"""


@pytest.fixture(scope="session")
def site(distributions: tuple[Path, Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    What a newcomer has: an empty environment, our wheel and whatever pip brings with it, `startproject`, two lines.

    No pins: a release of somebody else's that breaks it is to be seen here first. Needs the index that pip uses.
    """
    home = tmp_path_factory.mktemp("site")
    venv.create(home / "env", with_pip=False, symlinks=True)
    python = home / "env" / "bin" / "python"
    patience = ("--retries", "10", "--timeout", "60") if os.environ.get("CI") else ()
    install = ("install", "--quiet", "--disable-pip-version-check", "--no-input", *patience, distributions[1])
    try:
        run(sys.executable, "-m", "pip", "--python", python, *install, cwd=home)
    except AssertionError as error:
        unreachable = any(text in str(error) for text in ("NewConnectionError", "NameResolutionError", "ProxyError"))
        if os.environ.get("CI") or not unreachable:
            raise
        pytest.skip("pip cannot reach a package index")
    run(python, "-m", "django", "startproject", "bare", home, cwd=home)
    with (home / "bare" / "settings.py").open("a") as settings:
        settings.write(TWO_LINES)
    return home


def in_site(site: Path, *arguments: str) -> str:
    return run(site / "env" / "bin" / "python", *arguments, cwd=site, DJANGO_SETTINGS_MODULE="bare.settings")


def test_the_installed_package_can_be_imported_before_django_is_set_up(site: Path) -> None:
    out = in_site(site, "-W", "error", "-c", "import cacheadmin; print(cacheadmin.__version__, cacheadmin.__file__)")
    version, path = out.split()
    assert version == cacheadmin.__version__
    assert Path(path).is_relative_to(site)


def test_an_empty_environment_and_two_lines_of_settings_are_enough(site: Path) -> None:
    in_site(site, "-m", "django", "migrate", "--verbosity", "0")
    assert "no issues" in in_site(site, "-m", "django", "check", "--fail-level", "WARNING")
    assert "No changes" in in_site(site, "-m", "django", "makemigrations", "--check", "--dry-run")


def test_every_installed_template_and_static_file_is_found_by_django(site: Path) -> None:
    out = in_site(site, "-c", f"SITE = {os.fspath(site)!r}\n{USE}")
    assert out.strip() != "0 templates"


def test_importing_it_without_settings_is_silent() -> None:
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-c", "import cacheadmin; print(cacheadmin.get_cache_key('a', 1))"],
        cwd=Path(cacheadmin.__file__).parents[1],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("a:1\n", "")
