"""What people are told when something failed: what happened, what to do, no secret, in their language."""

import time

import pytest
from console import console_stock, make_run, make_shops, make_user, page, text_of
from django.utils.translation import override

from cacheadmin import connections, invalidation, warming
from cacheadmin.admin import runs, troubles
from cacheadmin.connections import links
from cacheadmin.models import Activity
from cacheadmin.targets import Target

OURS = {
    "The cache server of alias 'query' does not answer: TimeoutError.": "Redis (query) antwortet nicht: TimeoutError.",
    "The cache server of alias 'query' is away.": "Redis (query) antwortet nicht.",
    "Redis (query) does not answer.": "Redis (query) antwortet nicht.",
    "CacheAdminError: The server of alias 'query' does not answer; what is done is kept.": "Redis (query) antwortet",
    "The server of alias 'api' refused: OOM command not allowed.": "Redis (api) antwortet, lehnt aber ab: OOM command",
    "The server of alias 'api' answered somebody else's call.": "Redis (api) hat eine andere Frage beantwortet.",
    "The cache alias old, older is not configured any more.": "Kein Cache-Alias old, older ist eingerichtet.",
    "warm_with failed: KeyError: 'x'": "warm_with hat KeyError: 'x' ausgelöst",
    "Stopped before the end: what was looked at is done, the rest is not.": "Vor dem Ende angehalten:",
    "The delivery failed; see the log.": "Die Zustellung ist fehlgeschlagen.",
}
"""Texts as the package keeps them, and how they begin in German."""


@pytest.mark.parametrize("kept", OURS)
def test_what_the_package_raised_is_told_in_the_language_of_the_reader(kept) -> None:
    english = troubles.trouble(kept)
    with override("de"):
        german = troubles.trouble(kept)
    assert OURS[kept] in german.what
    assert english.what != german.what
    assert (english.advice == "") == (kept.startswith("Stopped"))


def test_texts_of_a_server_that_is_gone_are_known(settings, monkeypatch) -> None:
    """Other rooms may put it otherwise one day; then the table above is not what is kept."""
    monkeypatch.setattr(links, "server_url", lambda alias: f"redis://u5er:s3cr3t@127.0.0.1:1/{alias}")
    connections.forget_links()
    result = invalidation.deliver([Target("group", "stock", "3", "query")], source="user", name="amira")
    again = invalidation.deliver([Target("group", "stock", "3", "query")], source="user", name="amira")
    connections.forget_links()
    assert troubles.trouble(result.error).what.startswith("Redis (query) does not answer: ")
    assert troubles.trouble(again.error).what.startswith("Redis (query) does not answer")
    step = warming.Step(console_stock, "3", (2,))
    assert troubles.step_in_words(str(step), "3") == "console.console_stock(2)"
    assert troubles.step_in_words(str(step), "4") == "console.console_stock(2) of tenant 3"


@pytest.mark.parametrize(
    ("why", "advice"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "It is full"),
        ("READONLY You can't write against a read only replica.", "It is a replica"),
        ("NOPERM this user has no permissions to run the 'eval' command", "Its user may not do this"),
        ("ERR something else", "See in Health"),
    ],
)
def test_a_refusal_says_what_to_do_about_it(why, advice) -> None:
    found = troubles.trouble(f"The server of alias 'query' refused a value: {why}")
    assert found.what == f"Redis (query) answers, but refused: {why.rstrip('.')}."
    assert found.advice.startswith(advice)


# --- secrets --------------------------------------------------------------------------------------------------------


@pytest.fixture
def _secret(settings):
    query = settings.CACHES["query"]
    location = query["LOCATION"].replace("://", "://u5er:s3cr3t@", 1)
    settings.CACHES = settings.CACHES | {"query": query | {"LOCATION": location}}


TELLTALE = (
    "ConnectionError: Error 111 connecting with redis://u5er:s3cr3t@127.0.0.1:1/2: refused, password s3cr3t",
    "OperationalError: postgresql://app:hunter2@db/shop is gone",
)


@pytest.mark.django_db
@pytest.mark.usefixtures("_secret")
def test_no_page_of_a_failed_run_shows_a_password(admin) -> None:
    for error in TELLTALE:
        failures = [["shop.stock(1) of tenant 3", error]]
        kept = [{"run": {"done": 1, "results": {"failed": 1}, "failures": failures, "steps": [error]}}]
        row = make_run(["3"], state="failed", error=error, targets=kept)
        for name in ("run_detail", "activity_detail", "data_run"):
            body = admin.get(page(name, row.pk)).content.decode()
            assert ("is gone" in body) or ("refused" in body), name
            for secret in ("u5er", "s3cr3t", "app:", "hunter2"):
                assert secret not in body, (name, secret)


@pytest.mark.django_db
@pytest.mark.usefixtures("_secret")
def test_what_a_run_raises_is_kept_without_passwords(admin, amira, rf, monkeypatch) -> None:
    monkeypatch.setattr(runs, "launch", lambda job: job())
    request = rf.post("/")
    request.user = amira

    def work(teller):
        raise ValueError(TELLTALE[0])

    runs.start(request, work, kind="warm", what="x", tenants=[])
    kept = Activity.objects.get().error
    assert kept.startswith("ValueError: ConnectionError: Error 111")
    assert "s3cr3t" not in kept


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_run_whose_process_ended_says_so_and_what_to_do(admin) -> None:
    silent = make_run(["3"], state="running", targets=[{"run": {"done": 7, "told_at": 1.0}}])
    Activity.objects.filter(pk=silent.pk).update(at="2020-01-01T00:00Z")
    for state in ("running", "failed"):  # before and after another run wrote it down
        Activity.objects.update(state=state)
        text = text_of(admin.get(page("run_detail", silent.pk)))
        assert "the process that ran it has ended" in text
        assert "Begin it again." in text
    told = make_run(["3"], state="failed", targets=[{"run": {"done": 1, "failures": [["a", "KeyError: 1"]]}}])
    goes_on = make_run(["3"], state="running", targets=[{"run": {"done": 1, "told_at": time.time()}}])
    for row in (told, goes_on):
        assert "has ended" not in text_of(admin.get(page("run_detail", row.pk)))


def make_line_of(*shops) -> Activity:
    """Tell that somebody invalidated one group of several tenants."""
    targets = [Target("group", "sales_today", str(shop.pk), "query") for shop in shops]
    return Activity.objects.create(
        kind="invalidate",
        source="user",
        who="amira",
        tenants=[str(shop.pk) for shop in shops],
        targets=[target.to_json() for target in targets],
        what=", ".join(map(str, targets)),
    )


@pytest.mark.django_db
def test_a_line_of_activity_names_the_tenant_with_its_id(admin, django_assert_max_num_queries) -> None:
    ruby, gold = make_shops("Ruby & Co", "Gold & Sons")
    row = make_line_of(ruby, gold)
    said = f"group sales_today of Ruby & Co ({ruby.pk}) in query, group sales_today of Gold & Sons ({gold.pk}) in query"
    for url in (page("activity_list"), page("console_changelist")):
        with django_assert_max_num_queries(12):
            assert said in text_of(admin.get(url)), url
    with django_assert_max_num_queries(12):
        answer = admin.get(page("activity_detail", row.pk))
    assert f"G{said[1:]}" in text_of(answer)
    gold.delete()  # nobody knows its name any more
    assert f"Ruby & Co ({ruby.pk}) in query, group sales_today of tenant" in text_of(admin.get(page("activity_list")))


@pytest.mark.django_db
def test_nobody_reads_the_name_of_another_tenant_in_a_line_of_both() -> None:
    ruby, gold = make_shops("Ruby & Co", "Gold & Sons")
    row = make_line_of(ruby, gold)
    bound = make_user("ruby", "view_keys", tenant=ruby)
    for url in (page("activity_list"), page("activity_detail", row.pk)):
        body = bound.get(url).content.decode()
        assert f"Ruby &amp; Co ({ruby.pk})" in body
        assert "Gold &amp; Sons" not in body
        assert f"tenant {gold.pk}" not in body
