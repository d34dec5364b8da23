"""
Saves rows as requests do, in a process of its own with a real relay, and prints whose thread sent which statements.

    python counted_statements.py REDIS_URL DIRECTORY DATABASE SAVES [marked at once]
"""

import json
import sys
import threading
import time
from pathlib import Path

from faults import site

DEADLINE_SECONDS = 20
GATHER_SECONDS = 0.5
"""Longer than in a site: how many rows one UPDATE marks must not hang on how busy the machine is."""


def main():
    url, directory, database, saves, *options = sys.argv[1:]
    site.set_up(url, Path(directory), database)
    from django.db import connections

    from cacheadmin.models import Intent
    from cacheadmin.outbox import relay, waking
    from faults.models import Row

    relay.GATHER_SECONDS = GATHER_SECONDS
    if options:
        waking.has_thread = lambda connection: False
    tell_statements(type(connections["default"]))
    row, told = Row.objects.create(tenant=1), []
    until_all_are_marked(Intent)
    sent.clear()
    for _ in range(int(saves)):
        begun = len(sent)
        row.save()
        told.append([what for thread, what in sent[begun:] if thread == threading.get_ident()])
    until_all_are_marked(Intent)
    marks = [thread for thread, what in sent if what.startswith("UPDATE") and "cacheadmin_intent" in what]
    mine = marks.count(threading.get_ident())
    print(
        json.dumps({"requests": told, "marks": len(marks), "marks_by_requests": mine, "rows": Intent.objects.count()})
    )


sent = []
"""Thread and text of each statement, COMMIT among them."""


def tell_statements(wrapper):
    """Note every statement, also those that Django's own logs leave out."""
    create, commit = wrapper.create_cursor, wrapper._commit

    def telling(self, *args, **kwargs):
        cursor = create(self, *args, **kwargs)
        execute = cursor.execute

        def noting(sql, *args, **kwargs):
            sent.append((threading.get_ident(), str(sql)))
            return execute(sql, *args, **kwargs)

        cursor.execute = noting
        return cursor

    def committing(self):
        sent.append((threading.get_ident(), "COMMIT"))
        return commit(self)

    wrapper.create_cursor, wrapper._commit = telling, committing


def until_all_are_marked(intents):
    """Wait for the relay's thread."""
    ends_at = time.monotonic() + DEADLINE_SECONDS
    while intents.objects.exclude(state="done").exists():
        assert time.monotonic() < ends_at, "Rows are never marked done."
        time.sleep(0.02)


if __name__ == "__main__":
    main()
