"""Doing many things here or in threads, and stopping: nothing is lost, nothing is left open."""

import os
import signal
import threading
import time

import pytest
from django.db import connection, connections
from django.db.backends.sqlite3.base import DatabaseWrapper

from cacheadmin.dispatch import Stop, spread, stopping


@pytest.fixture
def closing(monkeypatch):
    """Let threads really close their connections: Django keeps those of an in-memory database."""
    before = DatabaseWrapper.is_in_memory_db
    here = threading.current_thread()
    monkeypatch.setattr(
        DatabaseWrapper, "is_in_memory_db", lambda self: threading.current_thread() is here and before(self)
    )


class TestSpread:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_every_item_is_worked_on_once(self, workers):
        assert sorted(spread(lambda n: n * n, range(50), workers=workers, stop=Stop())) == [n * n for n in range(50)]

    def test_nothing_to_do_ends_at_once(self):
        assert list(spread(str, [], workers=4, stop=Stop())) == []

    def test_one_worker_is_this_thread(self):
        assert list(spread(lambda _: threading.current_thread(), [1], stop=Stop())) == [threading.current_thread()]

    def test_workers_work_at_the_same_time_in_threads_of_their_own(self):
        together = threading.Barrier(3)

        def work(_):
            together.wait(10)
            return threading.current_thread().name

        names = list(spread(work, range(3), workers=3, stop=Stop()))
        assert sorted(names) == ["cacheadmin-worker-1", "cacheadmin-worker-2", "cacheadmin-worker-3"]
        assert not any(thread.name in names for thread in threading.enumerate())

    def test_an_item_is_taken_only_when_a_worker_is_free(self):
        taken, may_end = [], threading.Event()

        def items():
            for n in range(10):
                taken.append(n)
                yield n

        results = spread(lambda n: may_end.wait(10), items(), workers=2, stop=Stop())
        threading.Timer(0.05, may_end.set).start()
        next(results)
        assert taken == [0, 1]
        assert sum(1 for _ in results) == 9

    @pytest.mark.parametrize("workers", [1, 3])
    def test_stopping_takes_no_more_and_waits_for_what_runs(self, workers):
        stop, ended = Stop(), []

        def work(n):
            stop.set()
            time.sleep(0.02)
            ended.append(n)
            return n

        results = list(spread(work, range(100), workers=workers, stop=stop))
        assert sorted(results) == sorted(ended)
        assert 1 <= len(results) <= workers

    @pytest.mark.parametrize("workers", [1, 3])
    def test_an_error_is_raised_here_after_the_others_have_ended(self, workers):
        def work(n):
            if n == 5:
                raise ValueError("five")
            return n

        with pytest.raises(ValueError, match="five"):
            list(spread(work, range(100), workers=workers, stop=Stop()))
        assert not any(thread.name.startswith("cacheadmin-worker") for thread in threading.enumerate())

    def test_even_the_end_of_a_thread_does_not_hang_the_others(self):
        def work(n):
            raise SystemExit(n)

        with pytest.raises(SystemExit):
            list(spread(work, range(100), workers=2, stop=Stop()))

    def test_no_faster_than_asked(self):
        begun = time.monotonic()
        assert len(list(spread(str, range(6), per_second=100, stop=Stop()))) == 6
        assert time.monotonic() - begun >= 0.05

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.usefixtures("closing")
    def test_each_thread_has_a_database_connection_of_its_own_and_closes_it(self):
        together = threading.Barrier(2)

        def work(_):
            together.wait(10)
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            return connections["default"]

        used = list(spread(work, range(2), workers=2, stop=Stop()))
        assert len({id(wrapper) for wrapper in (*used, connections["default"])}) == 3
        assert [wrapper.connection for wrapper in used] == [None, None]


class TestStop:
    def test_waiting_ends_early(self):
        stop = Stop()
        threading.Timer(0.05, stop.set).start()
        begun = time.monotonic()
        assert stop.wait(30) is True
        assert time.monotonic() - begun < 10

    def test_waiting_ends_by_itself(self):
        assert Stop().wait(0.01) is False

    def test_asking_twice_is_asking_once(self):
        stop = Stop()
        stop.set()
        stop.set()
        assert stop.wait(1)
        assert stop.wait(1)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_first_signal_asks_to_stop(self, number):
        before = signal.getsignal(number)
        with stopping() as stop:
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
            assert stop.wait(30) is True
            assert stop.signal is number
            assert signal.getsignal(number) == before
        assert signal.getsignal(number) == before

    def test_the_second_ctrl_c_interrupts(self):
        with stopping() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.is_set
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    def test_outside_the_main_thread_no_handler_is_touched(self):
        before, seen = signal.getsignal(signal.SIGINT), []

        def look():
            with stopping() as stop:
                seen.append((signal.getsignal(signal.SIGINT), stop.is_set))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert seen == [(before, False)]
