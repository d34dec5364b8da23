"""The small parts of the console: ids, numbers and times, paging, words for targets."""

import json
import pickle
import time

import pytest
import time_machine
from console import text_of
from django.http import Http404, QueryDict
from django.utils import timezone, translation

from cacheadmin.admin import formats, ids, naming, paging, story, told
from cacheadmin.admin.tags import cacheadmin_breakable
from cacheadmin.admin.views.scopes import Invalidate, Line
from cacheadmin.browser.blast import Blast
from cacheadmin.browser.counts import GroupCount
from cacheadmin.exceptions import InvalidTarget
from cacheadmin.management.commands import cache_invalidate
from cacheadmin.models import Activity
from cacheadmin.preview import inspect
from cacheadmin.stats.history import DroppedLine
from cacheadmin.targets import ALL, KINDS, Target

HOSTILE = ("a/b", "%41", "?x#y", "line\nbreak", "{}*[]\\", "✓\u202e", "é" * 3000, "..", "plain")


# --- ids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_an_id_gives_back_exactly_what_it_was_made_of_and_fits_one_part_of_a_url(text):
    token = ids.entry_id("query", text, text, text)
    assert ids.open_entry(token) == ("query", text, text, text)
    assert ids.open_tenant(ids.tenant_id(text)) == text
    assert ids.open_group(ids.group_id("query", text)) == ("query", text)
    assert not set(token) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
    assert "~" in token


def test_an_id_is_the_same_each_time_and_shared_data_has_one():
    assert ids.tenant_id("12") == ids.tenant_id("12") != ids.tenant_id("13")
    assert ids.open_tenant(ids.tenant_id(None)) is None


@pytest.mark.parametrize(
    "wrong", ["", "x", "plain", "a~b", ids.group_id("query", "g"), ids.tenant_id("12") + "x", "é~é"]
)
def test_what_we_did_not_sign_as_such_an_id_is_not_found(wrong):
    with pytest.raises(Http404):
        ids.open_tenant(wrong)


def test_a_scope_carries_targets_and_only_so_many():
    targets = [Target("group", "a:b", "12", "query"), Target("tenant", "", None), Target("tag", "x", ALL)]
    assert ids.open_scope(ids.scope_id(targets)) == tuple(targets)
    with pytest.raises(InvalidTarget):
        ids.scope_id([Target("tenant", "", str(i)) for i in range(201)])


# --- numbers and times ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.00001, "< 0.1 ms"),
        (0.0004, "0.4 ms"),
        (0.188, "188 ms"),
        (0.9996, "1.0 s"),
        (8.2, "8.2 s"),
        (48, "48 s"),
        (59.7, "1 min"),
        (252, "4 min 12 s"),
        (7500, "2 h 5 min"),
        (4 * 86400 + 5, "4 days"),
    ],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("ratio", "decimals", "text"),
    [
        (None, 0, "–"),
        (0.0, 0, "0%"),
        (1.0, 1, "100%"),
        (0.9999, 0, ">99%"),
        (0.9999, 1, ">99.9%"),
        (0.004, 0, "<1%"),
        (0.93249, 1, "93.2%"),
        (0.61, 0, "61%"),
    ],
)
def test_nothing_is_rounded_to_all_or_nothing(ratio, decimals, text):
    assert formats.percent(ratio, decimals) == text


def test_numbers_are_grouped_and_unknown_is_a_dash():
    assert formats.number(38412) == "38,412"
    assert formats.number(None) == formats.size(None) == formats.rate(None) == formats.clock(None) == "–"
    assert formats.estimate(1240) == "~ 1,240"
    assert formats.estimate(1240, True) == "1,240"
    assert formats.compact(99_999) == "99,999"
    assert formats.compact(1_234_567) == "1.2 M"
    assert formats.points(-0.022) == "2.2"
    assert formats.points(0.33) == "33"
    assert formats.rate(38) == "38/min"
    assert formats.rate(5 / 60) == "5/h"
    with translation.override("de"):
        assert formats.number(38412) == "38.412"


@time_machine.travel(time.time(), tick=False)
def test_times_are_told_from_now():
    now = time.time()
    assert formats.ago(now - 2) == "just now"
    assert formats.ago(now - 30.5) == "30 s ago"
    assert formats.ago(now - 725) == "12 min ago"
    assert formats.ago(now + 185) == "in 3 min"
    assert formats.ago(now - 5 * 86400) not in ("", "–")
    assert formats.ago(None) == formats.ago(1e300) == formats.ago(float("nan")) == "–"
    assert formats.exactly(timezone.now()).endswith("UTC")


# --- paging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "page", "size"),
    [
        ("", 1, 25),
        ("p=-1", 1, 25),
        ("p=abc&per_page=1e9", 1, 25),
        ("p=3&per_page=99", 3, 100),
        ("per_page=1000000000", 1, 200),
    ],
)
def test_what_is_out_of_range_becomes_the_nearest_valid(query, page, size):
    wish = paging.asked(QueryDict(query))
    assert (wish.page, wish.size) == (page, size)


def test_a_page_past_the_end_is_the_last_and_links_keep_the_rest_of_the_query():
    rows, pager = paging.page_of(list(range(60)), paging.asked(QueryDict("p=99&q=a%26b")))
    assert rows == list(range(50, 60))
    assert (pager.first, pager.last, pager.total, pager.next_link) == (51, 60, 60, "")
    assert pager.previous_link == "?p=2&q=a%26b"
    assert paging.page_of([], paging.asked(QueryDict("")))[1].first == 0


def test_an_unknown_order_is_the_first_and_a_head_turns_it():
    wish = paging.asked(QueryDict("o=;drop"), orders=("-cost", "name"))
    assert wish.order == "-cost"
    cost, name = paging.columns([{"label": "Cost", "sort": "-cost"}, {"label": "Name", "sort": "name"}], wish)
    assert (cost.direction, cost.link, name.direction, name.link) == ("descending", "?o=cost", "", "?o=name")


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_targets_are_said_in_words():
    group = Target("group", "inventory_list", "12", "query")
    assert naming.phrase([group]) == "inventory_list of 12"
    assert naming.question([Target("tenant", "", "12")]) == "Invalidate everything cached for 12?"
    assert (
        naming.question([Target("tenant", "", None, "api")]) == "Invalidate everything cached for Shared data in api?"
    )
    assert naming.question([Target("key", "a:b", "12")]) == "Invalidate one entry of 12?"
    assert naming.phrase([Target("tenant", "", "1"), Target("tenant", "", "2")]) == "2 tenants"
    assert naming.name_to_type([Target("tenant", "", ALL, "query")]) == "query"
    assert naming.name_to_type([Target("group", "rates", ALL)]) == "rates"
    assert naming.name_to_type([Target("tenant", "", "1"), Target("tenant", "", "2")]) == "2 tenants"


# --- lines of Activity, in the language of their reader ---------------------------------------------------------------

TOLD = [
    (told.cleared("query"), "clear alias query", "Alias query leeren"),
    (told.recomputed("stock", "branch=1"), "recomputed stock: branch=1", "stock: branch=1 neu berechnet"),
    (told.rule("added", "sales"), "Added rule sales", "Regel sales hinzugefügt"),
    (told.imported(1, 2), "Imported 3 rules: 1 new, 2 changed", "3 Regeln importiert: 1 neu, 2 geändert"),
    ({"said": "warmed", "kind": "group", "count": 3, "whose": "all"}, "warm 3 groups of all tenants", None),
    ({"said": "warmed", "kind": "tenant", "count": 1, "whose": "one", "label": "Ruby"}, "warm Ruby", None),
    ({"said": "warmed", "kind": "tenant", "count": 2, "whose": "many", "tenants": 2}, "warm 2 tenants", None),
    ({"said": "warmed", "kind": "tag", "count": 1, "name": "x", "whose": "shared"}, "warm tag x of Shared data", None),
]


@pytest.mark.parametrize(("said", "english", "german"), TOLD)
def test_a_deed_is_kept_as_data_and_said_in_the_language_of_its_reader(said, english, german):
    row = Activity(kind="warm", what="as it was written", targets=[said])
    assert told.what_of(row) == english
    with translation.override("de"):
        found = told.what_of(row)
    assert found == german if german else found != english
    assert json.loads(json.dumps(said)) == said


@pytest.mark.parametrize(
    "broken", [{"said": "of a later version"}, {"said": "imported", "new": "x"}, {"said": None}, "x"]
)
def test_a_deed_that_cannot_be_read_is_shown_as_it_was_written(broken):
    assert told.what_of(Activity(kind="warm", what="as it was written", targets=[broken])) == "as it was written"


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("written", ["by a page", "by a command"])
def test_lines_of_an_older_version_are_said_by_their_targets(count, written):
    targets = [Target("group", f"g{i}", "3", "query") for i in range(count)]
    text = cache_invalidate.said(targets) if written == "by a command" else Invalidate.what(None, targets)
    row = Activity(kind="invalidate", what=text, targets=[target.to_json() for target in targets])
    with translation.override("de"):
        found = told.what_of(row)
    assert found.startswith("Gruppe g0 für Mandant 3 in query")
    assert ("und 2 weitere" in found) == (count == 5)
    row.what = "wrong prices"  # somebody's own words stay
    assert told.what_of(row) == "wrong prices"


def test_what_a_command_warmed_is_said_in_the_language_of_its_reader():
    row = Activity(kind="warm", source="command", what="warm stock, rates")
    assert told.what_of(row) == "warm stock, rates"
    with translation.override("de"):
        assert told.what_of(row) == "stock, rates vorwärmen"


def test_every_kind_of_target_has_words():
    for kind in KINDS:
        for tenant in (ALL, None, "3"):
            target = Target(kind, "" if kind == "tenant" else "x", tenant)
            assert told.target_in_words(target, {}) == str(target)
            with translation.override("fr"):
                assert told.target_in_words(target, {}) != str(target)


@pytest.mark.parametrize(
    ("value", "german", "french"),
    [
        ({"a": 1, "b": 2}, "dict, 2 Schlüssel", "dict, 2 clés"),
        ([1], "list, 1 Element", "list, 1 élément"),
        ("x" * 1500, "str, 1.500 Zeichen", "str, 1 500 caractères"),
    ],
)
def test_a_value_is_described_in_the_language_of_its_reader(value, german, french):
    for language, expected in (("de", german), ("fr", french)):
        with translation.override(language):
            assert inspect(pickle.dumps(value)).kind.replace("\xa0", " ").replace("\u202f", " ") == expected


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("shop.inventory_list", "shop.<wbr>inventory_<wbr>list"),
        ("report:sales, page=2", "report:<wbr>sales, page=<wbr>2"),
        ("ends_ in. signs:", "ends_ in. signs:"),
        ("2026.11.3 at 18:04", "2026.11.3 at 18:04"),
        ("<b>.x&y_z", "&lt;b&gt;.<wbr>x&amp;y_<wbr>z"),
        ("a\u202e_b", "a\\u202e_<wbr>b"),
        ("", ""),
    ],
)
def test_a_name_may_be_broken_behind_its_joints_and_is_escaped(name, shown):
    assert cacheadmin_breakable(name) == shown
    assert text_of(cacheadmin_breakable("inventory_list")) == "inventory_list"


# --- what happened to an entry --------------------------------------------------------------------------------------


class _Page:
    def rules_url(self, name):
        return f"rules?q={name}"


def test_what_a_busy_rule_did_minute_after_minute_is_told_as_one():
    now = int(time.time()) // 60 * 60
    minutes = [(0, "stock", 3), (1, "stock", 2), (2, "stock", 1), (3, "gold rate", 1), (4, "stock", 1), (9, "stock", 1)]
    lines = [
        DroppedLine(now - 60 * ago, "query", "3", "group stock", "rule", name, count) for ago, name, count in minutes
    ]
    told_of = story.Story(lines)
    found = story.events(_Page(), story.Subject("query", "3", "stock"), [], told_of, (now - 200.0, "Computed."))
    shown = [(event.text, event.url) for event in found if event.sign != "gap"]
    since = formats.clock(float(now - 120))[:5]
    assert shown == [
        (f"Group stock invalidated by stock, 6 times since {since}.", "rules?q=stock"),
        ("Group stock invalidated by gold rate.", "rules?q=gold rate"),
        ("Computed.", ""),
        ("Group stock invalidated by stock.", "rules?q=stock"),
        ("Group stock invalidated by stock.", "rules?q=stock"),
    ]
    gaps = [event.text for event in found if event.sign == "gap"]
    assert gaps == ["5 min, no invalidation"] or gaps[1:] == ["5 min, no invalidation"]  # of now, if a minute is over


def test_rules_that_take_turns_are_told_once_each_and_leave_no_gap_between():
    now = int(time.time()) // 60 * 60
    lines = [
        DroppedLine(now - 60 * ago, "query", "3", "group stock", "rule", name, 2)
        for ago in range(8)
        for name in ("stock", "stock, sales")
    ]
    lines.append(DroppedLine(now - 60 * 20, "query", "3", "group stock", "rule", "stock", 1))
    found = story.events(_Page(), story.Subject("query", "3", "stock"), [], story.Story(lines), None)
    since = formats.clock(float(now - 60 * 7))[:5]
    texts = [event.text for event in found if not event.text.startswith("1 min,")]
    assert texts == [
        f"Group stock invalidated by stock, 16 times since {since}.",
        f"Group stock invalidated by stock and 1 more, 16 times since {since}.",
        "13 min, no invalidation",
        "Group stock invalidated by stock.",
    ]


def test_a_history_is_not_all_one_rule():
    now = int(time.time()) // 60 * 60
    line = ("query", "3", "group stock", "rule")
    lines = [DroppedLine(now - 60 * ago, *line, "stock", 1) for ago in range(30)]
    lines.append(DroppedLine(now - 60 * 31, *line, "gold rate", 1))
    found = story.events(_Page(), story.Subject("query", "3", "stock"), [], story.Story(lines), None)
    assert "Group stock invalidated by gold rate." in [event.text for event in found]


# --- a smaller step --------------------------------------------------------------------------------------------------


class _Invalidate(Invalidate):
    def __init__(self):
        pass

    def url(self, name, *args):
        return f"/{name}/"


def test_smaller_steps_are_the_groups_that_are_read_most():
    reads = {"a": 3.0, "b": 90.0, "c": None, "d": 12.0}
    rows = tuple(GroupCount("query", "3", group, 5, 10, True, False) for group in reads)
    lines = [Line(group, "query", "Ruby", "", 5, 10, True, None, count) for group, count in reads.items()]
    blast = Blast(rows, 1, None, 20, 40, True)
    steps = _Invalidate()._steps([Target("tenant", "", "3")], blast, lines)
    assert [step.label for step in steps] == ["Only b", "Only d", "Only a"]
    assert _Invalidate()._steps([Target("group", "a", "3")], blast, lines) == []
