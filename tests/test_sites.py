"""Sites that are not built like the shop: each is a process of its own with the least settings that it needs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from server import Server

SITE = """
    import sys
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="a site",
        USE_TZ=True,
        ALLOWED_HOSTS=["testserver"],
        DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
        CACHES={{"default": {{"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": {url!r}}}}},
        TEMPLATES=[{{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}}],
        CACHEADMIN={{"TIMEOUT_MS": 10_000, "SLOW_MS": 5_000}},  # the machine may be busy
        **{more!r},
    )
    django.setup()
    from django.core.management import call_command
"""


def run(server: Server, code: str, **more: object) -> str:
    """Run code on a site; return what it printed. An error of the site fails the test with its traceback."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SITE.format(url=server.url, more=more)) + textwrap.dedent(code)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_site_without_the_admin_renders_templates_and_uses_every_command(redis_server: Server) -> None:
    code = """
        from django.template import engines
        from cacheadmin import cache_query_result, invalidate_tenant_cache

        template = engines["django"].from_string(
            "{% load cacheadmin %}{% cache 60 menu shared=True using='default' %}{{ word }}{% endcache %}"
        )
        call_command("check", fail_level="WARNING")
        call_command("migrate", verbosity=0)
        print(template.render({"word": "cold"}), template.render({"word": "new"}))
        for line in ("cache_invalidate --prefix menu", "cache_warm", "cache_browse tenants", "cache_stats",
                     "cache_rules --check", "cache_relay", "cache_sweep"):
            call_command(*line.split(), stdout=sys.stderr)
        print(template.render({"word": "fresh"}))
        from cacheadmin import doctor
        print([finding.check for finding in doctor.examine().findings if finding.level == "error"])
    """
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "cacheadmin"]
    assert run(redis_server, code, INSTALLED_APPS=apps).splitlines() == [
        "System check identified no issues (0 silenced).",
        "cold cold",
        "fresh",
        "[]",
    ]


def test_app_can_be_migrated_away_and_back_while_it_is_installed(redis_server: Server) -> None:
    code = """
        from django.contrib.contenttypes.models import ContentType
        from django.db import connection, transaction
        from cacheadmin import ABSENT, Rule, cache_query_result
        from cacheadmin import rules

        calls = []

        @cache_query_result(key_prefix="kinds", alias="default", shared=True)
        def kinds():
            calls.append(1)
            return ContentType.objects.count()

        call_command("migrate", verbosity=0)
        rules.current.code_rules = lambda: (Rule("kinds", model="contenttypes.ContentType", targets=["kinds"]),)
        rules.forget()
        for there in (True, False, True):
            tables = {t for t in connection.introspection.table_names() if t.startswith("cacheadmin_")}
            kinds()
            ContentType.objects.create(app_label="a", model=f"m{len(calls)}")
            alone = kinds.peek() is ABSENT
            kinds()
            with transaction.atomic():
                ContentType.objects.create(app_label="b", model=f"m{len(calls)}")
            print(len(tables), alone, kinds.peek() is ABSENT)
            call_command("migrate", "cacheadmin", *(["zero"] if there else []), verbosity=0)
    """
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "cacheadmin"]
    assert run(redis_server, code, INSTALLED_APPS=apps).splitlines() == ["4 True True", "0 True True", "4 True True"]
