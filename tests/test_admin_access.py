"""Who may open and do what: users x pages x methods, tenants of one's own, read-only mode."""

import re

import pytest
from console import (
    ALL_PERMISSIONS,
    client_of,
    console_rates,
    console_stock,
    entry_of,
    every_page,
    everything,
    make_run,
    make_shops,
    make_user,
    page,
    pages_of,
    scope_of,
    site_pages,
)
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from cacheadmin import browser
from cacheadmin.admin import ids, runs
from cacheadmin.admin.access import ACTS, NAMES, access_of
from cacheadmin.admin.console import PAGES, ConsoleAdmin
from cacheadmin.models import Activity, Console
from cacheadmin.targets import ALL, Target
from cacheadmin.tenancy import EVERYONE
from shop.models import Tenant, User

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _runs_in_place(monkeypatch):
    monkeypatch.setattr(runs, "launch", lambda job: job())


@pytest.fixture
def shops():
    ruby, gold = make_shops("Ruby & Co", "Gold & Sons")
    for shop in (ruby, gold):
        console_stock(str(shop.pk), 1)
    console_rates(18)
    return str(ruby.pk), str(gold.pk)


def acts(tenant):
    """Every page that asks or acts: name -> (the permission it needs, GET URL or None, POST URL, data)."""
    scope = scope_of(Target("tenant", "", tenant))
    ask, entry = page("invalidate", on=scope), entry_of(tenant)
    confirmed = {"on": scope, "confirmed": "yes"}
    return {
        "invalidate": ("invalidate", ask, page("invalidate"), confirmed),
        "selection": ("invalidate", None, page("invalidate"), {"chosen": scope}),
        "recompute": ("warm", None, page("entry_recompute", entry), {}),
        "warm": ("warm", page("warm", on=scope), page("warm"), {"on": scope}),
        "pace": ("warm", None, page("run_pace", make_run([tenant]).pk), {"pace": "slow"}),
        "cancel": ("warm", None, page("run_cancel", make_run([tenant]).pk), {}),
    }


PERMISSION_SETS = [
    (),
    ("view_keys",),
    *((permission,) for permission in sorted(ACTS)),
    *(("view_keys", permission) for permission in sorted(ACTS)),
]


@pytest.mark.parametrize("permissions", PERMISSION_SETS, ids="+".join)
def test_each_page_needs_its_permission_whatever_the_method(shops, permissions):
    client = make_user("amira", *permissions, "see_all_tenants")
    sees = "view_keys" in permissions
    for name, url in {**pages_of(shops[0]), **site_pages()}.items():
        assert client.get(url).status_code in ((200, 302) if sees else (403,)), name
        assert client.post(url).status_code in ((200, 302, 405) if sees else (403,)), name
    for name, (needs, ask, url, data) in acts(shops[0]).items():
        may = sees and needs in permissions
        if ask:
            assert client.get(ask).status_code == (200 if may else 403), name
        else:
            assert client.get(url).status_code in ((200, 404, 405) if may else (403, 405)), name
        assert client.post(url, data).status_code in ((200, 302) if may else (403,)), name
    may_clear = sees and "clear_alias" in permissions
    assert client.get(page("clear", on="query")).status_code == (200 if may_clear else 403)
    assert client.post(page("clear"), {"on": "query", "name": ""}).status_code == (200 if may_clear else 403)


def test_a_403_stands_in_our_frame_and_names_the_permission(shops):
    response = make_user("amira", "view_keys", "see_all_tenants").get(page("invalidate", on=scope_of(everything())))
    text = response.content.decode()
    assert response.status_code == 403
    assert "You need “Can invalidate caches” for this. Ask an administrator." in text
    assert 'aria-label="Cache"' in text


def test_a_button_one_may_not_press_is_absent(shops):
    looks = make_user("looks", "view_keys", "see_all_tenants")
    acting = make_user("acts", *ALL_PERMISSIONS)
    for name, url in pages_of(shops[0]).items():
        shown, full = looks.get(url).content.decode(), acting.get(url).content.decode()
        assert "Invalidate" not in shown.replace("Invalidated", ""), name
        assert "Recompute now" not in shown
        assert name == "plain" or "Invalidate" in full.replace("Invalidated", ""), name
    assert "Recompute now" in acting.get(pages_of(shops[0])["entry"]).content.decode()


def test_values_are_shown_to_those_who_may_see_values(shops):
    url = pages_of(shops[0])["entry"]
    keys_only = make_user("keys", "view_keys", "see_all_tenants").get(url).content.decode()
    assert "You may see keys, not values." in keys_only
    assert "hunter2" not in keys_only
    assert "hunter2" in make_user("values", "view_keys", "view_values", "see_all_tenants").get(url).content.decode()


def test_a_user_who_is_bound_to_a_tenant_sees_and_touches_that_one_only(shops):
    ruby, gold = shops
    client = make_user(
        "ruby", "view_keys", "view_values", "invalidate", "warm", "clear_alias", tenant=Tenant.objects.get(pk=ruby)
    )
    for name, url in pages_of(ruby).items():
        assert client.get(url).status_code == 200, name
    for name, url in {**pages_of(gold), **{f"shared {n}": u for n, u in pages_of(None).items()}}.items():
        assert client.get(url).status_code == 404, name
    for name, (_needs, ask, url, data) in acts(gold).items():
        assert ask is None or client.get(ask).status_code == 404, name
        assert client.post(url, data).status_code == 404, name
    for target in (Target("tenant", "", None), Target("group", "console_stock", ALL), everything()):
        assert client.get(page("invalidate", on=scope_of(target))).status_code == 404
    assert client.get(page("clear", on="query")).status_code == 404
    assert client.get(page("run_detail", make_run("*").pk)).status_code == 404
    assert client.get(page("run_detail", make_run([ruby]).pk)).status_code == 200
    assert Activity.objects.filter(kind="invalidate").count() == 0


def test_another_tenants_id_is_answered_as_one_that_never_was(shops):
    client = make_user("ruby", "view_keys", tenant=Tenant.objects.get(pk=shops[0]))

    def answer(url):
        response = client.get(url)
        text = re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", response.content.decode())
        return response.status_code, text.replace(url, "")

    theirs = answer(page("tenant_detail", ids.tenant_id(shops[1])))
    assert theirs == answer(page("tenant_detail", ids.tenant_id("no-such"))) == answer(page("tenant_detail", "x~y"))
    assert theirs[0] == 404


def test_one_tenant_is_opened_at_once_and_find_stays_within(shops):
    ruby = Tenant.objects.get(pk=shops[0])
    client = make_user("ruby", "view_keys", tenant=ruby)
    assert client.get(page("tenant_list")).url == page("tenant_detail", ids.tenant_id(shops[0]))
    assert "Gold" not in client.get(page("find", q="Go")).content.decode().replace("“Go”", "")
    assert client.get(page("find", q="Ruby")).url == page("tenant_detail", ids.tenant_id(shops[0]))
    member = browser.entries("query", shops[1], "console_stock").rows[0].member
    theirs = browser.entry("query", shops[1], "console_stock", member).full_key
    assert client.get(page("find"), {"q": theirs}).status_code == 200


def test_all_tenants_takes_the_permission_and_the_tenancys_word(shops, settings):
    plain = User.objects.create_user("plain", is_staff=True)
    assert access_of(plain).tenants == frozenset()
    assert access_of(User.objects.create_superuser("root")).tenants is EVERYONE
    settings.CACHEADMIN = {"TENANCY": "cacheadmin.tenancy.Tenancy"}  # says: everyone
    assert access_of(plain).tenants == frozenset()
    settings.CACHEADMIN = {}  # no tenants: nothing to keep apart
    assert access_of(plain).tenants is EVERYONE


def test_a_user_without_a_tenant_is_told_so():
    text = make_user("lost", "view_keys").get(page("tenant_list")).content.decode()
    assert "You see no tenant here." in text
    assert "Can see all tenants" in text


def test_read_only_switches_every_act_off_and_says_so(shops, settings):
    settings.CACHEADMIN = {**settings.CACHEADMIN, "READ_ONLY": True}
    client = client_of(User.objects.create_superuser("root"))
    for name, url in pages_of(shops[0]).items():
        text = client.get(url).content.decode()
        assert "Read-only:" in text, name
        assert "Invalidate" not in text.replace("Invalidated", "").replace("Invalidation rules", ""), name
    for name, (_needs, ask, url, data) in acts(shops[0]).items():
        response = client.post(url, data)
        assert response.status_code == 403, name
        assert "settings switch acts off" in response.content.decode()
        assert ask is None or client.get(ask).status_code == 403
    assert client.post(page("clear"), {"on": "query", "name": "query"}).status_code == 403


def test_those_who_are_not_staff_or_not_logged_in_go_to_the_login(shops):
    customers = (Client(), make_user("customer", *ALL_PERMISSIONS, is_staff=False))
    for client in customers:
        for url in (*pages_of(shops[0]).values(), page("invalidate", on=scope_of(everything()))):
            response = client.get(url)
            assert response.status_code == 302
            assert "/login/" in response.url


def test_acts_need_the_csrf_token(shops):
    user = User.objects.create_superuser("root")
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    for name, (_needs, _ask, url, data) in acts(shops[0]).items():
        assert client.post(url, data).status_code == 403, name
        assert client.post(url, data | {"csrfmiddlewaretoken": "x" * 64}).status_code == 403, name
    assert client.post(page("clear"), {"on": "query", "name": "query"}).status_code == 403
    assert not Activity.objects.filter(kind__in=("invalidate", "clear")).exists()


def test_no_method_but_those_meant_does_anything(shops):
    client = client_of(User.objects.create_superuser("root"))
    for name, (_needs, _ask, url, data) in acts(shops[0]).items():
        for method in (client.put, client.patch, client.delete):
            assert method(url, data).status_code == 405, name
        client.get(url, data)
        client.get(url, data | {"_method": "post"}, headers={"X-HTTP-Method-Override": "POST"})
    assert not Activity.objects.filter(kind__in=("invalidate", "clear")).exists()


def test_every_page_has_an_address_a_name_and_a_permission():
    for route, view, name in PAGES:
        assert name.startswith("cacheadmin_")
        assert view.needs, route
        assert set(view.needs) <= set(NAMES)
    assert reverse("admin:cacheadmin_console_changelist").endswith("/cacheadmin/console/")


def test_the_index_shows_the_console_to_those_who_may_see_it(rf):
    console = ConsoleAdmin(Console, admin.site)
    request = rf.get("/")
    for permissions, is_shown in (((), False), (("view_keys",), True)):
        user = User.objects.create_user(f"user{len(permissions)}", is_staff=True)
        client = client_of(user)
        if permissions:
            make_user("x", "view_keys")
            user.user_permissions.set(User.objects.get(username="x").user_permissions.all())
        request.user = User.objects.get(pk=user.pk)
        assert console.has_view_permission(request) is console.has_module_permission(request) is is_shown
        assert ("Cache console" in client.get(reverse("admin:index")).content.decode()) is is_shown
        assert not console.has_add_permission(request)
        assert not console.has_change_permission(request)
        assert not console.has_delete_permission(request)


def test_who_may_not_see_the_rules_is_led_to_none():
    urls = {name: url for name, url in every_page().items() if not name.startswith(("rule ", "host"))}
    for permissions, leads in ((), False), (("view_invalidationrule",), True), (("change_invalidationrule",), True):
        client = make_user(f"of {permissions}", *ALL_PERMISSIONS, *permissions)
        pages = {name: client.get(url, follow=True).content.decode() for name, url in urls.items()}
        found = {name for name, text in pages.items() if "/invalidationrule/?q=" in text}
        assert ({"activity_list", "function"} <= found) is leads, permissions
        assert leads or not any("/invalidationrule/" in text for text in pages.values())
