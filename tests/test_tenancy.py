"""Whose request, row and context it is, by each of the bundled classes."""

from __future__ import annotations

import threading
import uuid
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection, models
from django.test import RequestFactory, override_settings
from django.test.utils import isolate_apps

from cacheadmin import cache_tenant_query, get_tenant_cache_key
from cacheadmin.exceptions import ImproperSettings, InvalidTenant
from cacheadmin.tenancy import EVERYONE, ForeignKeyTenancy, NoTenants, SchemaTenancy, ScopesTenancy, Tenancy, tenancy
from cacheadmin.tenancy import Tenant as Shown
from shop.models import Branch, GoldRate, Sale, SaleLine, Tenant, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def tenants() -> list[Tenant]:
    return [Tenant.objects.create(name=name, slug=name) for name in ("ruby", "Opal", "Onyx", "100%", "_")]


class ByShop(ForeignKeyTenancy):
    model = "shop.Tenant"


# --- the active one -------------------------------------------------------------------------------------------------


def test_active_tenant_is_text_and_ends_with_its_block() -> None:
    site = tenancy()
    assert site.current() is None
    with site.activate(12):
        assert site.current() == "12"
        with site.activate("a"), site.activate(None):
            assert site.current() is None
        assert site.current() == "12"
    assert site.current() is None


@pytest.mark.parametrize("nobody", ["", True, 1.5, object()])
def test_only_a_tenant_can_be_active(nobody: object) -> None:
    with pytest.raises(InvalidTenant), tenancy().activate(nobody):
        pass
    assert tenancy().current() is None


def test_error_inside_the_block_ends_it_too() -> None:
    with pytest.raises(RuntimeError), tenancy().activate(1):
        raise RuntimeError
    assert tenancy().current() is None


def test_other_threads_have_their_own() -> None:
    seen: list[str | None] = []
    with tenancy().activate(1):
        thread = threading.Thread(target=lambda: seen.append(tenancy().current()))
        thread.start()
        thread.join()
    assert seen == [None]


# --- which class ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["nope", "shop.cache.Nope", "shop.models.Tenant", "json.dumps", "a.b.c", ""])
def test_path_that_names_no_tenancy_is_said(path: str) -> None:
    with (
        override_settings(CACHEADMIN={"TENANCY": path} if path else {"TENANCY": "."}),
        pytest.raises(ImproperSettings, match="TENANCY"),
    ):
        tenancy()


def test_default_is_a_site_without_tenants() -> None:
    with override_settings(CACHEADMIN={}):
        site = tenancy()
        assert type(site) is NoTenants
        assert tenancy() is site
        request = RequestFactory().get("/")
        request.tenant = 5
        assert site.from_request(request) is None
        assert list(site.from_instance(Branch(tenant_id=5))) == []
        assert (list(site.list()), site.has_tenants, site.lists_all) == ([], False, True)


# --- the base class -------------------------------------------------------------------------------------------------


def test_request_says_its_tenant_itself_or_by_its_user() -> None:
    site = Tenancy()
    request = RequestFactory().get("/")
    assert site.from_request(request) is None
    request.user = AnonymousUser()
    assert site.from_request(request) is None
    request.user = SimpleNamespace(tenant=Tenant(pk=5))
    assert site.from_request(request) == "5"
    request.tenant = uuid.UUID(int=1)
    assert site.from_request(request) == str(uuid.UUID(int=1))


def test_instance_says_its_tenant() -> None:
    assert list(Tenancy().from_instance(Branch(tenant_id=5))) == ["5"]
    assert list(Tenancy().from_instance(Branch())) == []
    assert list(Tenancy().from_instance(GoldRate())) == []


def test_list_of_few_is_searched_by_name_and_id() -> None:
    class Few(Tenancy):
        def list(self):
            return [Shown("1", "Ruby"), Shown("12", "opal"), Shown("x", "Onyx")]

    site = Few()
    assert [t.id for t in site.find("O")] == ["12", "x"]
    assert [t.id for t in site.find("1")] == ["1", "12"]
    assert [t.id for t in site.find("", limit=2)] == ["1", "12"]
    assert site.labels(["x", "1", "nope"]) == {"1": "Ruby", "x": "Onyx"}
    assert site.allowed(AnonymousUser()) is EVERYONE
    assert list(Tenancy().list()) == []


# --- a foreign key --------------------------------------------------------------------------------------------------


def test_rows_name_their_tenant_and_a_tenant_is_its_own() -> None:
    site = ByShop()
    assert list(site.from_instance(Tenant(pk=5))) == ["5"]
    assert list(site.from_instance(Branch(tenant_id=7))) == ["7"]
    assert list(site.from_instance(GoldRate())) == []

    class ByBranch(ForeignKeyTenancy):
        model, field = "shop.Branch", "branch"

    assert list(ByBranch().from_instance(Sale(branch_id=3, tenant_id=1))) == ["3"]


def test_tenant_of_a_request_is_that_of_its_user_without_a_query(django_assert_num_queries) -> None:
    site, request = ByShop(), RequestFactory().get("/")
    request.user = User(tenant_id=7)
    with django_assert_num_queries(0):
        assert site.from_request(request) == "7"
    request.tenant = 5
    assert site.from_request(request) == "5"


def test_a_request_may_call_its_tenant_as_the_foreign_keys_do() -> None:
    class ByCustomer(ForeignKeyTenancy):
        model = "shop.Tenant"
        field = "customer"

    request = RequestFactory().get("/")
    request.user = SimpleNamespace(customer=3, tenant=4)
    assert ByCustomer().from_request(request) == "3"
    request.tenant = 5
    assert ByCustomer().from_request(request) == "5"
    request.customer = 6
    assert ByCustomer().from_request(request) == "6"
    request.user = request.tenant = request.customer = None
    assert ByCustomer().from_request(request) is None


@isolate_apps("shop")
def test_a_key_that_holds_another_column_of_the_tenant_gives_his_id() -> None:
    class Paper(models.Model):  # noqa: DJ008 - nobody sees it
        tenant = models.ForeignKey(Tenant, models.CASCADE, to_field="slug", related_name="+")

        class Meta:
            app_label = "shop"

    assert list(ByShop().from_instance(Paper(tenant=Tenant(pk=9, slug="ruby")))) == ["9"]


def test_only_a_row_of_the_tenants_model_stands_for_a_tenant() -> None:
    tenant, item = Tenant(pk=7, name="Ruby"), GoldRate(pk=7)
    assert get_tenant_cache_key(tenant, "stock") == get_tenant_cache_key(7, "stock")
    with pytest.raises(InvalidTenant, match=r"no shop\.Tenant"):
        get_tenant_cache_key(item, "stock")
    asked: list[object] = []

    class Rate(GoldRate):
        class Meta:
            app_label = "shop"
            proxy = True

        @cache_tenant_query(key_prefix="of_rate")
        def history(self) -> None:
            asked.append(self)

    with pytest.raises(InvalidTenant, match="without a tenant"):
        Rate(pk=7).history()
    assert asked == []


def test_row_of_a_tenant_with_a_schema_stands_for_its_schema() -> None:
    acme = SimpleNamespace(_meta=object(), pk=7, schema_name="acme")
    with override_settings(CACHEADMIN={"TENANCY": "cacheadmin.tenancy.SchemaTenancy"}):
        assert get_tenant_cache_key(acme, "stock") == "tenant:acme:stock:-"
        with pytest.raises(InvalidTenant):
            get_tenant_cache_key(GoldRate(pk=7), "stock")


def test_tenants_are_listed_and_found_by_query(tenants: list[Tenant], django_assert_num_queries) -> None:
    site = ByShop()
    with django_assert_num_queries(1):
        assert [t.label for t in site.list()] == ["ruby", "Opal", "Onyx", "100%", "_"]
    with django_assert_num_queries(1):
        assert [t.label for t in site.find("o")] == ["Onyx", "Opal"]
    assert [t.label for t in site.find("o", limit=1)] == ["Onyx"]
    assert [t.label for t in site.find("%")] == []
    assert [t.label for t in site.find("_")] == ["_"]
    pk = str(tenants[0].pk)
    assert site.find(pk)[0] == Shown(pk, "ruby")
    assert len(site.find("", limit=3)) == 3


@pytest.mark.parametrize("text", ["9" * 30, "-1", "x" * 1000, "\0", "'; --", "٣", "1e5", " 1", "\ud800"])
def test_odd_text_finds_nobody_and_breaks_nothing(tenants: list[Tenant], text: str) -> None:
    assert ByShop().labels([text, str(tenants[1].pk)])[str(tenants[1].pk)] == "Opal"
    ByShop().find(text)


def test_labels_are_one_query_however_many(tenants: list[Tenant], django_assert_num_queries) -> None:
    with django_assert_num_queries(1):
        labels = ByShop().labels([str(t.pk) for t in tenants] + ["nope", "-", ""])
    assert labels == {str(t.pk): t.name for t in tenants}


def test_shop_knows_its_requests_and_rows(tenants: list[Tenant]) -> None:
    site, request = tenancy(), RequestFactory().get("/shops/ruby/")
    assert site.from_request(request) == str(tenants[0].pk)
    request.user = User(tenant=tenants[1])
    assert site.from_request(request) == str(tenants[1].pk)
    assert site.from_request(RequestFactory().get("/shops/nope/")) is None
    line = SaleLine(sale=Sale(tenant=tenants[2]))
    assert list(site.from_instance(line)) == [str(tenants[2].pk)]
    clerk = User.objects.create(username="clerk", tenant=tenants[2])
    assert list(site.allowed(clerk)) == [str(tenants[2].pk)]
    assert list(site.allowed(AnonymousUser())) == []


# --- schemas --------------------------------------------------------------------------------------------------------


def test_schema_is_the_tenant_and_the_public_one_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    site, request = SchemaTenancy(), RequestFactory().get("/")
    assert site.from_request(request) is None
    assert site.current() is None
    for schema, tenant in (("ruby", "ruby"), ("public", None)):
        request.tenant = SimpleNamespace(schema_name=schema)
        assert site.from_request(request) == tenant
        monkeypatch.setitem(vars(connection._connections[connection._alias]), "schema_name", schema)
        assert site.current() == tenant
        assert list(site.from_instance(Branch())) == ([] if tenant is None else [tenant])


def test_nobody_can_be_active_in_every_class() -> None:
    """The middleware activates None for a request without a tenant."""
    for site in (Tenancy(), NoTenants(), ByShop(), SchemaTenancy(), ScopesTenancy()):
        with site.activate(None):
            pass
