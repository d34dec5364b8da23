"""What there is to warm, and runs over it."""

import threading

import pytest
from django.db import transaction

from cacheadmin import Invalidation, Target, cache_query_result, cache_tenant_query, functions, rules
from cacheadmin.connections import link
from cacheadmin.dispatch import Stop
from cacheadmin.models import InvalidationRule
from cacheadmin.outbox import Delivery
from cacheadmin.store import ABSENT
from cacheadmin.tenancy import tenancy
from cacheadmin.warming import Step, UnknownFunction, afterwards, plan, run, run_waiting, runs, warm, warmable
from shop import inventory, rates
from shop.models import Branch, GoldRate, Tenant

pytestmark = pytest.mark.django_db


@pytest.fixture
def calls():
    """Whom the functions of these tests computed for."""
    return []


@pytest.fixture
def made(monkeypatch, calls):
    """`made(warm_with=…, **options)` decorates a function for this test alone; it notes its calls."""
    monkeypatch.setattr(functions, "registry", dict(functions.registry))
    monkeypatch.setattr(runs, "registry", functions.registry)
    monkeypatch.setattr(afterwards, "registry", functions.registry)

    def make(body=lambda tenant_id, n=0: f"{tenant_id}/{n}", decorator=cache_tenant_query, **options):
        def counted(tenant_id, n=0):
            calls.append((tenant_id, n))
            return body(tenant_id, n)

        group = options.pop("group", "made")
        counted.__qualname__ = f"{group}_counted"
        return decorator(timeout=60, key_prefix=group, **options)(counted)

    return make


@pytest.fixture
def shared(monkeypatch, calls):
    """A function of shared data that is warmed."""
    monkeypatch.setattr(functions, "registry", dict(functions.registry))
    monkeypatch.setattr(runs, "registry", functions.registry)
    monkeypatch.setattr(afterwards, "registry", functions.registry)

    @cache_query_result(timeout=60, key_prefix="shared_made", shared=True, warm_with=[()])
    def everybody():
        calls.append(tenancy().current())
        return 1

    return everybody


@pytest.fixture
def away(settings):
    """A server of alias `query` that nobody listens to."""
    settings.CACHES = settings.CACHES | {"query": settings.CACHES["query"] | {"LOCATION": "redis://127.0.0.1:1/1"}}


class TestWarmable:
    def test_only_functions_that_name_arguments(self):
        names = [function.name for function in warmable()]
        assert "shop.inventory.inventory_list" in names
        assert "shop.inventory.suppliers" not in names

    def test_inner_aliases_come_first(self, made):
        made(group="aaa_outer", alias="api", warm_with=[()])
        aliases = [function.alias for function in warmable()]
        assert aliases == sorted(aliases, key=["query", "default", "template", "api"].index)

    @pytest.mark.parametrize("name", ["shop.inventory.branch_board", "inventory.branch_board", "branch_board"])
    def test_a_function_is_found_by_its_name_the_end_of_it_or_its_group(self, name):
        assert warmable([name]) == [inventory.branch_board]

    def test_an_unknown_name_is_answered_with_the_nearest(self):
        with pytest.raises(UnknownFunction, match=r"called 'branch_bord'. Did you mean shop.inventory.branch_board"):
            warmable(["branch_bord"])

    def test_a_function_without_arguments_to_warm_is_told_how_to_name_them(self):
        with pytest.raises(UnknownFunction, match=r"shop.inventory.suppliers\(\) has nothing to warm.*warm_with="):
            warmable(["suppliers"])

    def test_a_function_of_an_alias_that_is_not_managed_is_passed_over(self, made):
        made(group="elsewhere", alias="sessions", warm_with=[()])
        assert "elsewhere" not in [function.group for function in warmable()]


class TestPlan:
    def test_each_tenant_has_each_functions_arguments(self, made):
        function = made(warm_with=[(1,), {"n": 2}])
        assert [(s.tenant, s.kwargs) for s in plan([function], ["7", "8"])] == [
            *(("7", {"tenant_id": "7", "n": 1}), ("7", {"tenant_id": "7", "n": 2})),
            *(("8", {"tenant_id": "8", "n": 1}), ("8", {"tenant_id": "8", "n": 2})),
        ]

    def test_arguments_may_depend_on_the_tenant(self):
        tenant = Tenant.objects.create(name="Ruby", slug="ruby")
        branch = Branch.objects.create(tenant=tenant, name="Quay", city="Porto")
        [step] = plan([inventory.branch_board], [str(tenant.pk)])
        assert step.kwargs == {"tenant_id": str(tenant.pk), "branch_id": branch.pk}

    def test_shared_data_goes_first_and_only_if_asked_for(self, made, shared):
        function = made(warm_with=[()])
        assert [s.tenant for s in plan([function, shared], ["7"], shared=True)] == [None, "7"]
        assert [s.tenant for s in plan([function, shared], ["7"])] == ["7"]

    def test_two_ways_to_write_one_call_are_one(self, made):
        function = made(warm_with=[(), (0,), {"n": 0}, (1,)])
        assert [step.kwargs.get("n") for step in plan([function], ["7"])] == [None, 1]

    def test_wrong_arguments_fail_when_it_is_their_turn(self, made):
        function = made(warm_with=[{"no": 1}, {"no": 2}, ()])
        report = run(plan([function], ["7"]))
        assert report.counts == {"failed": 2, "warmed": 1}
        assert "unexpected keyword argument 'no'" in report.failures[0][1]

    def test_a_function_whose_arguments_cannot_be_listed_is_a_failure_among_others(self, made):
        def broken(tenant_id):
            raise LookupError("no such table")

        bad, good = made(group="bad", warm_with=broken), made(group="good", warm_with=[()])
        report = run(plan([bad, good], ["7"]))
        assert report.counts == {"failed": 1, "warmed": 1}
        [(call, error)] = report.failures
        assert call.endswith("counted() of tenant 7")
        assert error == "warm_with failed: LookupError: no such table"


class TestWarm:
    def test_what_is_warmed_is_a_hit(self, made, calls):
        function = made(warm_with=[(5,)])
        [step] = plan([function], ["7"])
        assert warm(step).result == "warmed"
        assert function("7", 5) == "7/5"
        assert calls == [("7", 5)]

    def test_what_is_cached_is_passed_over(self, made, calls):
        function = made(warm_with=[()])
        function("7")
        [step] = plan([function], ["7"])
        assert warm(step).result == "fresh"
        assert calls == [("7", 0)]

    def test_the_tenant_is_active_while_it_is_computed(self, made):
        function = made(lambda tenant_id, n: tenancy().current(), warm_with=[()])
        [step] = plan([function], ["7"])
        warm(step)
        assert function.peek("7") == "7"
        assert tenancy().current() is None

    def test_a_value_invalidated_while_it_is_computed_is_not_kept(self, made):
        def body(tenant_id, n):
            function.invalidate_all(tenant_id)
            return "old"

        function = made(body, warm_with=[()])
        [step] = plan([function], ["7"])
        assert warm(step).result == "refused"
        assert function.peek("7") is ABSENT

    def test_a_newer_value_is_not_overwritten(self, made):
        """A reader's value, made after an invalidation, stands although the warm run ends later."""
        begun, written = threading.Event(), threading.Event()
        source = ["old"]

        def body(tenant_id, n):
            value = source[0]
            if value == "old":
                begun.set()
                written.wait(60)
            return value

        function = made(body, warm_with=[()])
        [step] = plan([function], ["7"])
        outcomes = []
        thread = threading.Thread(target=lambda: outcomes.append(warm(step)))
        thread.start()
        begun.wait(60)
        source[0] = "new"
        function.invalidate("7")
        assert function("7") == "new"
        written.set()
        thread.join()
        assert function.peek("7") == "new"

    def test_in_a_transaction_that_has_written_nothing_is_kept(self, made):
        function = made(warm_with=[()])
        [step] = plan([function], ["7"])
        with transaction.atomic():
            Tenant.objects.create(name="Ruby", slug="ruby")
            assert warm(step).result == "refused"
        assert function.peek("7") is ABSENT

    def test_an_error_is_told_in_one_line(self, made):
        function = made(lambda tenant_id, n: 1 / 0, warm_with=[()])
        [step] = plan([function], ["7"])
        outcome = warm(step)
        assert (outcome.result, outcome.error) == ("failed", "ZeroDivisionError: division by zero")

    def test_without_the_server_nothing_is_computed(self, made, calls, away):
        function = made(warm_with=[()])
        [step] = plan([function], ["7"])
        assert warm(step).result == "away"
        assert calls == []

    def test_it_costs_one_round_trip_when_fresh_and_five_with_the_proof_that_it_was_kept(self, made, round_trips):
        function = made(warm_with=[()])
        [step] = plan([function], ["7"])
        link("query").call(("PING",))
        with round_trips() as sent:
            assert warm(step).result == "warmed"
        assert len(sent) == 5
        with round_trips() as sent:
            assert warm(step).result == "fresh"
        assert sent == ["MGET"]


class TestRun:
    def test_a_run_that_is_begun_again_goes_on_where_it_was(self, made, calls):
        stop = Stop()
        function = made(warm_with=[(n,) for n in range(10)])
        first = run(plan([function], ["7"]), stop=stop, on_outcome=lambda o: len(calls) == 4 and stop.set())
        assert (first.counts, first.is_stopped) == ({"warmed": 4}, True)
        second = run(plan([function], ["7"]))
        assert (second.counts, second.is_stopped) == ({"warmed": 6, "fresh": 4}, False)
        assert len(calls) == 10

    def test_one_failure_does_not_keep_the_others_from_being_warmed(self, made):
        function = made(lambda tenant_id, n: 10 / n, warm_with=[(0,), (1,), (2,)])
        report = run(plan([function], ["7"]))
        assert report.counts == {"failed": 1, "warmed": 2}
        assert report.failures[0][1] == "ZeroDivisionError: division by zero"

    def test_it_stops_by_itself_when_the_server_is_away(self, made, calls, away):
        function = made(warm_with=[(n,) for n in range(100)])
        report = run(plan([function], ["7"]))
        assert (report.away, report.is_stopped, report.done, calls) == ("query", True, 0, [])

    def test_a_short_absence_only_pauses_it(self, made, monkeypatch):
        function, results = made(warm_with=[(n,) for n in range(3)]), []
        take = runs.warm

        def first_away(step):
            results.append("away" if len(results) < 2 else take(step).result)
            return runs.Outcome(step, results[-1])

        monkeypatch.setattr(runs, "warm", first_away)
        monkeypatch.setattr(runs, "AWAY_PAUSE", 0.01)
        report = run(plan([function], ["7"]), patience=30)
        assert (report.counts, report.is_stopped) == ({"warmed": 3}, False)

    def test_failures_are_all_counted_and_some_are_kept(self, made, monkeypatch):
        monkeypatch.setattr(runs, "FAILURES_KEPT", 3)
        function = made(lambda tenant_id, n: 1 / 0, warm_with=[(n,) for n in range(9)])
        report = run(plan([function], ["7"]))
        assert (report.counts["failed"], len(report.failures)) == (9, 3)

    def test_two_runs_at_once_end_with_every_value_kept(self, made):
        together = threading.Barrier(2)

        def body(tenant_id, n):
            together.wait(60)
            return n

        function = made(body, warm_with=[(n,) for n in range(3)])
        reports = []
        threads = [threading.Thread(target=lambda: reports.append(run(plan([function], ["7"])))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [function.peek("7", n) for n in range(3)] == [0, 1, 2]
        assert sum(report.counts["failed"] for report in reports) == 0

    def test_workers_warm_what_one_thread_would(self, made):
        function = made(warm_with=[(n,) for n in range(40)])
        report = run(plan([function], ["7", "8"]), workers=4)
        assert report.counts == {"warmed": 80}
        assert [function.peek(t, n) for t in "78" for n in range(40)] == [f"{t}/{n}" for t in "78" for n in range(40)]

    def test_an_async_function_is_warmed_too(self, made, monkeypatch):
        monkeypatch.setattr(functions, "registry", dict(functions.registry))

        @cache_tenant_query(timeout=60, key_prefix="made_async", warm_with=[()])
        async def later(tenant_id):
            return f"{tenant_id} later"

        assert run(plan([later], ["7"])).counts == {"warmed": 1}
        assert later.peek("7") == "7 later"

    def test_the_shops_own_functions_are_warmed(self):
        tenant = Tenant.objects.create(name="Ruby", slug="ruby")
        report = run(plan(warmable(), [str(tenant.pk)], shared=True))
        assert report.failures == []
        assert inventory.inventory_card.peek(str(tenant.pk)) is not ABSENT
        assert rates.latest_gold_rates.peek() == []


class TestAfterwards:
    """Rules with `warm`. While tests run no thread does it; `run_waiting` is called by hand."""

    @pytest.fixture(autouse=True)
    def _nothing_waits(self):
        """What other tests wrote may have left something."""
        afterwards._waiting.clear()

    @pytest.fixture
    def ruby(self):
        tenant = Tenant.objects.create(name="Ruby", slug="ruby")
        run_waiting()
        return tenant

    @pytest.fixture
    def rule(self):
        """`rule(*targets)` makes a rule on branches that warms afterwards."""

        def make(*targets, **values):
            values = {"name": "warm", "model": "shop.Branch", "targets": list(targets), "warm": True} | values
            row = InvalidationRule.objects.create(**values)
            rules.forget()
            run_waiting()
            return row

        yield make
        rules.forget()

    def test_what_a_rule_dropped_is_cached_again(self, ruby, rule, made, calls):
        function = made(group="made", warm_with=[()])
        rule({"kind": "prefix", "name": "mad"})
        function(ruby.pk)
        Branch.objects.create(tenant=ruby, name="Quay", city="Porto")
        assert function.peek(ruby.pk) is ABSENT
        assert run_waiting().failures == []
        assert function.peek(str(ruby.pk)) == f"{ruby.pk}/0"

    def test_many_writes_are_one_computation(self, ruby, rule, made, calls):
        made(group="made", warm_with=[()])
        rule({"kind": "group", "name": "made"})
        calls.clear()
        for n in range(5):
            Branch.objects.create(tenant=ruby, name=f"Quay {n}", city="Porto")
        run_waiting()
        assert calls == [(str(ruby.pk), 0)]

    def test_only_what_the_rules_targets_reach(self, ruby, rule, made, calls):
        made(group="made", warm_with=[()])
        made(group="other", warm_with=[()])
        rule({"kind": "group", "name": "made", "alias": "query"})
        calls.clear()
        Branch.objects.create(tenant=ruby, name="Quay", city="Porto")
        run_waiting()
        assert len(calls) == 1

    def test_a_rule_that_does_not_warm_leaves_it_to_the_readers(self, ruby, rule, made, calls):
        made(group="made", warm_with=[()])
        row = rule({"kind": "group", "name": "made"})
        row.warm = False
        row.save()
        calls.clear()
        Branch.objects.create(tenant=ruby, name="Quay", city="Porto")
        run_waiting()
        assert calls == []

    def test_all_tenants_are_not_warmed_but_shared_data_is(self, ruby, rule, made, shared, calls):
        made(group="made", warm_with=[()])
        rule({"kind": "tenant", "name": ""}, tenant="*", model="shop.GoldRate")
        calls.clear()
        GoldRate.objects.create(karat=24, price_per_gram=80)
        run_waiting()
        assert calls == [None]

    def test_what_waits_is_bounded(self, monkeypatch):
        monkeypatch.setattr(afterwards, "MOST_WAITING", 3)
        targets = tuple(Target("tenant", "", str(n)) for n in range(10))
        afterwards.note(Delivery(targets, warm=("a",)), Invalidation(targets, "done"))
        assert len(afterwards._waiting) == 3
        assert run_waiting().counts == {}

    def test_the_thread_warms_what_was_noted(self, made, monkeypatch):
        warmed = threading.Event()
        monkeypatch.setattr(afterwards, "GATHER_SECONDS", 0)
        monkeypatch.setattr(afterwards, "in_tests", lambda: False)
        monkeypatch.setattr(afterwards, "run_waiting", warmed.set)
        afterwards.note(Delivery((Target("tenant", "", "7"),), warm=("x",)), Invalidation((), "done"))
        assert warmed.wait(60)
        afterwards._waiting.clear()


def test_a_step_says_what_it_is():
    step = Step(inventory.inventory_list, "7", (), {"tenant_id": "7", "branch_id": 5})
    assert str(step) == "shop.inventory.inventory_list(branch_id=5) of tenant 7"
