"""The preview shows what is stored, runs nothing of it, and stays quick and quiet whatever the bytes are."""

import collections
import datetime as dt
import gzip
import json
import lzma
import pickle
import random
import struct
import sys
import time
import uuid
import zlib
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from django.utils.safestring import mark_safe
from django_redis.client.herd import Marker
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheadmin.preview import HIDDEN, MAX_BYTES, Difference, compressors, diff, formats, inspect
from cacheadmin.results import ResultList
from shop.models import Category, InventoryItem, Tenant

ITEM = {
    "sku": "RG-22K-0417",
    "name": "Ruby halo ring, 22K",
    "in_stock": 3,
    "price": Decimal("1865.50"),
    "updated": dt.datetime(2026, 11, 22, 3, 5, 11, tzinfo=dt.UTC),
    "supplier_cost": Decimal("990"),
    "tags": ("ring", "ruby"),
}
NOON = dt.datetime(2026, 1, 2, 12)


LIMIT_CALLS = 1_400_000
"""
Calls of functions, in Python and in C, that showing one value may take: they stand for 0.3 s, whatever the machine
does besides. The most that any value here takes are 1.1 million, in 0.15 s of an idle machine and 0.25 s of a busy one.
"""
LIMIT_SECONDS = 10 if sys.gettrace() else 1
"""CPU time where calls say little."""
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def nodes(preview):
    """Every node of a preview by its path."""
    found, waiting = {}, [preview.root] if preview.root else []
    while waiting:
        node = waiting.pop()
        found[node.path] = node
        waiting += node.children
    return found


def seconds_to_inspect(payload, **options):
    start = time.thread_time()  # of this thread alone: the machine may be busy with something else
    preview = inspect(payload[:MAX_BYTES], total_bytes=len(payload), **options)
    seconds = time.thread_time() - start
    assert_sound(preview)
    return seconds


def assert_sound(preview):
    """No step has raised, and every text can be sent to a browser."""
    assert not [warning for warning in preview.warnings if "could not be read" in warning], preview
    for text in (preview.kind, preview.text, preview.json, preview.hexdump, *preview.warnings):
        (text or "").encode()
    for node in nodes(preview).values():
        assert all(part.isprintable() for part in (node.path, node.label, node.type_name, node.text)), node


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class Basket(dict):
    pass


Size = collections.namedtuple("Size", "ring chain")


# What it shows


def test_a_list_of_dicts_is_a_tree():
    stored = zlib.compress(pickle.dumps([ITEM] * 41, 5))
    preview = inspect(stored)
    assert (preview.kind, preview.serializer, preview.compressor) == ("list, 41 items", "pickle 5", "zlib")
    assert preview.stored_bytes == len(stored)
    assert preview.memory_bytes == len(pickle.dumps([ITEM] * 41, 5))
    assert preview.warnings == ()
    assert not preview.is_truncated
    first = preview.root.children[0]
    assert (first.label, first.type_name, first.text) == ("0", "dict", "7 keys")
    assert [(node.label, node.type_name, node.text) for node in first.children] == [
        ("sku", "str", '"RG-22K-0417"'),
        ("name", "str", '"Ruby halo ring, 22K"'),
        ("in_stock", "int", "3"),
        ("price", "Decimal", 'Decimal("1865.50")'),
        ("updated", "datetime", "datetime(2026-11-22 03:05:11+00:00)"),
        ("supplier_cost", "Decimal", 'Decimal("990")'),
        ("tags", "tuple", "2 items"),
    ]
    assert first.children[3].path == "0.price"


def test_levels_fill_up_before_details_and_the_rest_is_counted():
    preview = inspect(pickle.dumps([[1, 2, 3]] * 41), max_nodes=21)
    assert (len(preview.root.children), preview.root.more) == (5, 36)
    assert [child.more for child in preview.root.children] == [0, 0, 0, 0, 0]
    assert len(nodes(preview)) == 21
    flat = inspect(pickle.dumps([*range(41)]), max_nodes=21)
    assert ([node.text for node in flat.root.children], flat.root.more) == ([*map(str, range(20))], 21)
    shallow = inspect(pickle.dumps([[[[["deep"]]]]]), max_depth=2)
    assert shallow.text == "list, 1 item\n  0: list, 1 item\n    0: list, 1 item\n      … 1 more"
    assert json.loads(shallow.json) == [[["… 1 more"]]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("value", "type_name", "text"),
    [
        (None, "NoneType", "None"),
        (True, "bool", "True"),
        (-(2**70), "int", "-1180591620717411303424"),
        (2**9000, "int", "an integer of 9,001 bits"),
        (1.5, "float", "1.5"),
        ("é\u202e\x00\n\"\\", "str", r'"é\u202e\x00\n\"\\"'),
        ("\ud800", "str", r'"\ud800"'),
        ("x" * 500, "str", f'"{"x" * 120}"… 500 characters'),
        (b"\x00\xff\"'", "bytes", r'''b"\x00\xff\"'"'''),
        (bytearray(b"xy"), "bytearray", 'b"xy"'),
        (dt.datetime(2026, 1, 2, 3, 4, 5, 6), "datetime", "datetime(2026-01-02 03:04:05.000006)"),
        (NOON.replace(tzinfo=ZoneInfo("Europe/Berlin")), "datetime", "datetime(2026-01-02 12:00:00 Europe/Berlin)"),
        (NOON.replace(tzinfo=dt.timezone(dt.timedelta(hours=5.5))), "datetime", "datetime(2026-01-02 12:00:00+05:30)"),
        (dt.date(2026, 1, 2), "date", "date(2026-01-02)"),
        (dt.time(1, 2, 3), "time", "time(01:02:03)"),
        (dt.timedelta(days=1, minutes=5), "timedelta", "timedelta(1 day, 0:05:00)"),
        (Decimal("-0.10"), "Decimal", 'Decimal("-0.10")'),
        (uuid.UUID(int=5), "UUID", 'UUID("00000000-0000-0000-0000-000000000005")'),
        (complex(1, 2), "complex", "complex(1.0, 2.0)"),
        (InventoryItem.Metal.GOLD, "shop.models.InventoryItem.Metal", 'Metal("gold")'),
        (Point, "name", f"{__name__}.Point"),
        ([], "list", "0 items"),
        ((1, 2), "tuple", "2 items"),
        ({3, 1}, "set", "2 items"),
        (frozenset("a"), "frozenset", "1 item"),
        (collections.OrderedDict(a=1), "OrderedDict", "1 key"),
        (collections.defaultdict(list, {"a": [1], "b": []}), "defaultdict", "2 keys"),
        (collections.Counter("aab"), "Counter", "2 keys"),
        (collections.deque([1, 2], 5), "deque", "2 items"),
        (Point(1, "north"), f"{__name__}.Point", "2 fields"),
    ],
)  # fmt: skip
def test_values_are_named_in_every_protocol(protocol, value, type_name, text):
    preview = inspect(pickle.dumps(value, protocol))
    if protocol >= 2 or preview.serializer.startswith("pickle"):  # "N." is a text as much as a pickle of None
        assert (preview.root.type_name, preview.root.text) == (type_name, text)
        assert preview.warnings == ()
    assert_sound(preview)


@pytest.mark.parametrize("protocol", PROTOCOLS[2:])
def test_subclasses_and_named_tuples_show_what_is_in_them(protocol):
    preview = inspect(pickle.dumps([Slotted(7), Basket(a=1), Size(1, "long"), ResultList([5, 6])], protocol))
    module = __name__
    assert preview.text.splitlines() == [
        "list, 4 items",
        f"  0: {module}.Slotted, 1 field",
        "    x: 7",
        f"  1: {module}.Basket, 1 key",
        "    a: 1",
        '  2: Size(1, "long")',
        "  3: ResultList, 2 items",
        "    0: 5",
        "    1: 6",
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_shows_its_fields_and_loaded_relations(protocol):
    item = InventoryItem(id=7, sku="RG-1", price=Decimal("10.00"), category=Category(id=3, name="Rings"))
    preview = inspect(pickle.dumps(item, protocol))
    assert preview.root.type_name == "shop.InventoryItem"
    assert preview.kind == f"shop.InventoryItem, {preview.root.size} fields"
    found = nodes(preview)
    assert found["price"].text == 'Decimal("10.00")'
    assert found["category"].type_name == "shop.Category"
    assert found["category.name"].text == '"Rings"'
    assert not {"_state", "_django_version"} & {node.label for node in preview.root.children}
    assert preview.root.size == len(preview.root.children)


@pytest.mark.django_db
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_queryset_shows_its_rows(protocol):
    Tenant.objects.create(name="Ruby & Co", slug="ruby")
    preview = inspect(pickle.dumps(Tenant.objects.all(), protocol))
    assert preview.kind == "QuerySet, 1 row"
    assert nodes(preview)["0.name"].text == '"Ruby & Co"'
    assert json.loads(preview.json)[0]["slug"] == "ruby"


def test_a_cached_fragment_is_text():
    preview = inspect(pickle.dumps(mark_safe("<b>1 & 2</b>\n")))
    assert (preview.kind, preview.root.type_name) == ("SafeString, 13 characters", "SafeString")
    assert preview.text == "<b>1 & 2</b>\n"


def test_the_wrapper_of_a_herd_client_is_taken_off():
    preview = inspect(pickle.dumps((Marker(), {"a": 1}, 1700000000)))
    assert preview.kind == "dict, 1 key"
    assert preview.warnings == ("stored by django-redis’ HerdClient, shown without its wrapper",)


def test_what_holds_itself_is_shown_as_a_reference_and_what_is_shared_twice():
    shared = ["shared"]
    loop = {"a": shared, "b": shared}
    loop["me"] = loop
    preview = inspect(pickle.dumps({"x": loop}))
    assert nodes(preview)["x.me"].text == "the same as x"
    assert nodes(preview)["x.a.0"].text == nodes(preview)["x.b.0"].text == '"shared"'


def test_keys_of_any_kind_have_a_label_and_a_path():
    keys = {
        1: "a",
        "1": "b",
        b"k": "c",
        (1, "x"): "d",
        dt.date(2026, 1, 2): "e",
        "a.b\\": "f",
        "\u202ekey": "g",
        None: "h",
    }
    for protocol in PROTOCOLS:
        preview = inspect(pickle.dumps(keys, protocol))
        labels = [node.label for node in preview.root.children]
        assert labels == ["1", "1", 'b"k"', '(1, "x")', "date(2026-01-02)", "a.b\\", "\\u202ekey", "None"]
        assert [node.path for node in preview.root.children][5] == "a\\.b\\\\"
        assert len(json.loads(preview.json)) == len(keys)


def test_an_integer_is_told_as_the_backend_stores_it():
    preview = inspect(b"-42")
    assert (preview.kind, preview.serializer, preview.text, preview.json) == ("int", "integer", "-42", "-42")


def test_json_text_and_bytes_are_told_apart():
    kinds = {
        b'{"a": [1, 2.5, "x\\u00e9", true, null, {}]}': ("json", "dict, 1 key"),
        b"[2026-11-22] log line": ("text", "text, 21 characters"),
        "Rubinring – 22K".encode(): ("text", "text, 15 characters"),
        "Perles et rubis cass\xe9s".encode("latin-1"): ("text", "text, 25 characters"),
        b"x^2 + y^2": ("text", "text, 9 characters"),
        b'"quoted" and more': ("text", "text, 17 characters"),
        b"N.": ("text", "text, 2 characters"),
        b"\x00\x01\xfe": ("bytes", "3 bytes"),
        b"": ("bytes", "empty"),
    }
    assert {payload: (inspect(payload).serializer, inspect(payload).kind) for payload in kinds} == kinds


def test_text_shows_what_does_not_print_as_escapes():
    assert inspect("a\tb\r\n\u202e<script>\x1b[2J\x00".encode()).text == "a\tb\\r\n\\u202e<script>\\x1b[2J\\x00"
    assert inspect("cass\xe9 et rubis".encode("latin-1")).text == "cass\\xe9 et rubis"


def test_hex_shows_what_was_decompressed():
    assert inspect(gzip.compress(b"\x00Ruby & Co, since 1911")).hexdump == (
        "00000000  00 52 75 62 79 20 26 20 43 6f 2c 20 73 69 6e 63  .Ruby & Co, sinc\n"
        "00000010  65 20 31 39 31 31                                e 1911"
    )


# The forms it reads


SHORT = {"sku": "RG-1", "rows": [{"n": i, "on": True} for i in range(30)]}
LZ4_RUBY = bytes.fromhex("04224d186040820f0000005f727562792005004750727562792000000000")
ZSTD_RUBY = bytes.fromhex("28b52ffd206465000028727562792001008ca96801")
MSGPACK_ROWS = bytes.fromhex("82a3736b75a452472d31a4726f777392cb3ff8000000000000c403000102")


@pytest.mark.parametrize("compress", [zlib.compress, gzip.compress, lzma.compress], ids=["zlib", "gzip", "lzma"])
def test_compressed_values_are_decompressed(compress, request):
    for dump in (pickle.dumps, lambda value: json.dumps(value).encode()):
        preview = inspect(compress(dump(SHORT)))
        assert preview.compressor == request.node.callspec.id
        assert (preview.kind, preview.memory_bytes) == ("dict, 2 keys", len(dump(SHORT)))


@pytest.mark.parametrize("name", ["lz4", "zstd"])
def test_optional_compressors_are_used_or_named(name, monkeypatch):
    stored = {"lz4": LZ4_RUBY, "zstd": ZSTD_RUBY}[name]
    library = {"lz4": "LZ4", "zstd": "ZSTD"}[name]
    if getattr(compressors, library) is not None:
        preview = inspect(stored)
        assert (preview.compressor, preview.text) == (name, "ruby " * 20)
    monkeypatch.setattr(compressors, library, None)
    preview = inspect(stored)
    assert (preview.compressor, preview.serializer, preview.root) == (name, "bytes", None)
    assert preview.hexdump.startswith("00000000  ")
    assert "install the package " in preview.warnings[0]


def test_msgpack_is_read_or_named(monkeypatch):
    stored = MSGPACK_ROWS
    if formats.MSGPACK is not None:
        preview = inspect(stored)
        assert preview.serializer == "msgpack"
        assert (
            preview.text == 'dict, 2 keys\n  sku: "RG-1"\n  rows: list, 2 items\n    0: 1.5\n    1: b"\\x00\\x01\\x02"'
        )
        cut = inspect(stored[:-5], total_bytes=len(stored))
        assert (cut.kind, nodes(cut)["rows"].text) == ("dict, at least 2 keys", "at least 1 item")
        assert_sound(inspect(b"\x91" * 60_000))
        assert inspect(stored + b"\x00").serializer != "msgpack"
    monkeypatch.setattr(formats, "MSGPACK", None)
    assert "may be msgpack: install the package msgpack to see" in inspect(stored).warnings


def test_damaged_compression_keeps_what_came_out():
    stored = bytearray(zlib.compress(random.Random(1).randbytes(3000) + b"x" * 5000))
    stored[2000] ^= 255
    stored[-2] ^= 255
    preview = inspect(bytes(stored))
    assert preview.compressor == "zlib"
    assert "damaged" in preview.warnings[0]
    assert inspect(b"\x1f\x8bnot gzip").warnings == (
        "looks like gzip, but cannot be decompressed: Error -3 while decompressing data: unknown compression method",
    )
    assert inspect(gzip.compress(b"ruby ring " * 9)[:-12]).warnings == (
        "damaged: gzip stops after 10 bytes (it ends early)",
    )
    assert inspect(gzip.compress(b"ruby") + b"more").warnings == ("more after the compressed bytes: 4 bytes",)


@pytest.mark.parametrize(
    "text", ["[1,]", "{1: 2}", '{"a" 1}', "[1 2]", "[01]", '{"a": 1', '["\\x"]', "[tru]", "{,}", "]", "[1]]", '{"a":}']
)
def test_what_is_nearly_json_is_text(text):
    assert inspect(text.encode()).serializer == "text"


def test_json_numbers_out_of_range_are_kept():
    preview = inspect(b"[1e999, -1e999, NaN, Infinity, " + b"9" * 5000 + b"]")
    assert [node.text[:9] for node in preview.root.children] == ['"1e999"', '"-1e999"', "nan", "inf", '"99999999']
    assert json.loads(preview.json)[2:4] == ["nan", "inf"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.text(max_size=30), children, max_size=5),
    max_leaves=30,
)


@settings(max_examples=300, deadline=None)
@given(JSON_VALUES, st.sampled_from(PROTOCOLS[2:]))
def test_plain_data_comes_back_as_json(value, protocol):
    expected = json.loads(json.dumps(value))
    for payload in (pickle.dumps(value, protocol), json.dumps([value]).encode()):
        preview = inspect(payload, max_nodes=10_000, max_depth=100)
        assert_sound(preview)
        if not any(not label.isprintable() or label == "…" for label in labels_of(value)):
            assert json.loads(preview.json) in (expected, [expected])


def labels_of(value):
    if isinstance(value, dict):
        return [*value, *(label for child in value.values() for label in labels_of(child))]
    return [label for child in value for label in labels_of(child)] if isinstance(value, list) else []


# Only the beginning of a value


def test_a_long_value_shows_its_beginning():
    rows = [dict(ITEM, sku=f"RG-{i}") for i in range(2000)]
    for payload in (pickle.dumps(rows), zlib.compress(pickle.dumps(rows), 1), json.dumps(rows, default=str).encode()):
        preview = inspect(payload[:MAX_BYTES], total_bytes=len(payload))
        assert preview.is_truncated
        assert "truncated at 64.0\u00a0KB" in preview.warnings
        assert preview.kind.startswith("list, at least ")
        assert preview.stored_bytes == len(payload)
        assert nodes(preview)["3.sku"].text == '"RG-3"'
        assert json.loads(preview.json)[0]["sku"] == "RG-0"


def calls_to_inspect(payload):
    """Return how many functions are called to show a value."""
    count = 0

    def note(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        inspect(payload[:MAX_BYTES], total_bytes=len(payload))
    finally:
        sys.setprofile(before)
    return count


def test_a_long_text_shows_its_beginning():
    page = "<p>Rubine für Zürich</p>\n" * 10_000
    for payload in (pickle.dumps(page), pickle.dumps(mark_safe(page)), page.encode(), json.dumps(page).encode()):
        preview = inspect(payload[:MAX_BYTES], total_bytes=len(payload))
        assert preview.is_truncated
        assert preview.kind.split(", ")[1].startswith("at least ")
        assert (json.loads(preview.json) if preview.json else preview.text).startswith(page[:1000])


def test_64_mb_are_read_by_their_first_slice():
    payload = memoryview(pickle.dumps([b"x" * 1024] * 3 + [bytes(64 * 1024 * 1024)]))[:MAX_BYTES]
    assert seconds_to_inspect(payload) < LIMIT_SECONDS
    preview = inspect(bytes(payload), total_bytes=64 * 1024 * 1024)
    assert preview.stored_bytes == preview.memory_bytes == 64 * 1024 * 1024
    assert preview.kind == "list, at least 4 items"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_cut_anywhere_shows_what_was_complete(protocol):
    values = [[ITEM, ITEM | {"tags": ("a", "b", "c", "d")}, ITEM], {"data": {"items": [ITEM, ITEM]}}]
    if protocol >= 2:
        values.append(ResultList([Category(id=i, name=f"Rings {i}") for i in range(3)]))
    for value in values:
        payload = pickle.dumps(value, protocol)
        whole = nodes(inspect(payload))
        steady = 0
        for end in range(2, len(payload)):
            preview = inspect(payload[:end], total_bytes=len(payload))
            assert preview.is_truncated
            assert_sound(preview)
            found = [node for node in nodes(preview).values() if node.is_leaf and not node.text.endswith('…"')]
            right = [node for node in found if node.path in whole and whole[node.path].text == node.text]
            # What waits at the cut may stand at the wrong place; what was complete before it may not.
            assert len(found) - len(right) <= 8, (end, preview.text)
            assert len(right) >= steady - 8
            steady = max(steady, len(right))
        assert steady >= len([node for node in whole.values() if node.is_leaf]) - 8


@pytest.mark.parametrize("payload", [json.dumps(SHORT).encode(), json.dumps('a\\"\n\u2028\U0001f48d' * 3).encode()])
def test_json_cut_anywhere_is_never_an_error(payload):
    for end in range(1, len(payload)):
        preview = inspect(payload[:end], total_bytes=len(payload))
        assert_sound(preview)
        assert preview.is_truncated
        assert end < 20 or preview.serializer == "json"


# Nothing runs


class Evil:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def evil_pickles(path):
    command, write = f"touch {path}", f"open({str(path)!r}, 'w').close()"
    for protocol in PROTOCOLS:
        for function, args in [
            (sys.modules["os"].system, (command,)),
            (eval, (write,)),
            (exec, (write,)),
            (open, (str(path), "w")),
            (sys.modules["subprocess"].check_output, (command, None)),
            (getattr, (Evil(__import__, "canary_module"), "name")),
        ]:
            yield pickle.dumps(Evil(function, *args), protocol)
            yield pickle.dumps([ITEM, {"x": Evil(function, *args)}], protocol)
            yield pickle.dumps({Evil(function, *args): 1}, protocol)
    yield b"ccanary_module\nanything\n."
    yield b"\x80\x04\x8c\x0dcanary_module\x94\x8c\x05Class\x94\x93)\x81}b."
    yield b"(i__main__\ncanary_module\n."
    yield b"(cos\nsystem\nV" + command.encode() + b"\no."
    yield b"cbuiltins\neval\n(V" + write.encode() + b"\ntR."
    yield b"\x80\x02cbuiltins\neval\nX" + struct.pack("<I", len(write)) + write.encode() + b"\x85R"  # no STOP


def test_nothing_of_a_malicious_pickle_runs(tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    (tmp_path / "canary_module.py").write_text(f"open({str(canary)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = set(sys.modules)
    for payload in evil_pickles(canary):
        for stored in (payload, zlib.compress(payload), lzma.compress(payload)):
            preview = inspect(stored)
            assert_sound(preview)
            assert diff(preview, preview) == ()
    assert not canary.exists()
    assert set(sys.modules) == loaded


def test_the_canary_would_be_seen(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(next(evil_pickles(canary)))
    assert canary.exists()


def test_risky_names_are_told_with_the_call():
    preview = inspect(pickle.dumps({"a": Evil(sys.modules["os"].system, "rm -rf /")}))
    assert preview.root.children[0].text == 'system("rm -rf /")'
    assert preview.warnings == ("names posix.system: loading it could run code",)
    hidden = b"\x80\x04\x8c\x0bshop.models\x8c\x09os.system\x93."
    assert inspect(hidden).warnings == ("names shop.models.os.system: loading it could run code",)
    dug_up = b"\x80\x02c__builtin__\ngetattr\ncshop.models\nos\nX\x06\x00\x00\x00system\x86R."
    assert inspect(dug_up).warnings == ("names shop.models.os.system: loading it could run code",)
    assert inspect(pickle.dumps(dt.datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Kolkata")), 2)).warnings == ()


# Bounds


def push(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


HOSTILE = {
    "lists nested 100,000 deep": b"](" * 100_000,
    "lists nested and closed": b"\x80\x02" + b"]" * 30_000 + b"a" * 29_999 + b".",
    "tuples nested": b"\x80\x02)" + b"\x85" * 60_000 + b".",
    "marks": b"\x80\x02" + b"(" * 65_000,
    "calls of calls": b"\x80\x02cos\nsystem\n" + b")R" * 30_000 + b".",
    "a billion laughs": b"\x80\x02]q\x00" + b"".join(
        b"]q%c(" % (i + 1) + b"h%c" % i * 100 + b"e" for i in range(60)
    ) + b".",
    "one long text 16,000 times": b"\x80\x02" + push("x" * 30_000) + b"q\x000](" + b"h\x00" * 16_000 + b"e.",
    "a set of one long text": b"\x80\x04" + push("x" * 30_000) + b"q\x000\x8f(" + b"h\x00" * 16_000 + b"\x90.",
    "long names": b"\x80\x04" + push("x" * 30_000) + b"q\x000](" + b"h\x00h\x00\x93" * 6_000 + b"e.",
    "shared arguments": b"\x80\x02(" + b"K\x01" * 10_000 + b"tq\x000](ccopyreg\n__newobj__\nq\x01"
    + b"h\x01h\x00R" * 8_000 + b"e.",
    "many states": b"\x80\x02cshop\nX\n)\x81" + b"}b" * 30_000 + b".",
    "a large set often": b"\x80\x04\x8fq\x00(" + b"".join(b"J" + struct.pack("<i", i) for i in range(100))
    + b"\x900](" + b"h\x00" * 8_000 + b"e.",
    "an integer of 520,000 bits": b"\x80\x02\x8b" + struct.pack("<I", 65_000) + b"\x7f" * 65_000 + b".",
    "a length beyond memory": b"\x80\x04\x8d" + b"\xff" * 8 + b"short",
    "a memo index of 4 billion": b"\x80\x02Nr\xff\xff\xff\xffj\xff\xff\xff\xff.",
    "a month that is none": pickle.dumps(dt.date(2026, 1, 1)).replace(b"\x07\xea\x01\x01", b"\x07\xea\x4d\x01"),
    "empty dicts": b"\x80\x02(" + b"}" * 65_000 + b"l.",
    "JSON nested 100,000 deep": b"[" * 100_000,
    "JSON nested and closed": b"[" * 30_000 + b"]" * 30_000,
    "JSON objects nested": b'{"a":' * 20_000,
    "backslashes": b'"' + b"\\" * 65_000,
    "digits": b"[" + b"9" * 60_000 + b"]",
    "an exponent": b"[1e" + b"9" * 60_000 + b"]",
    "direction overrides": f'["{chr(0x202E) * 20_000}"]'.encode(),
    "a zlib bomb": zlib.compress(bytes(60_000_000), 9),
    "a gzip bomb": gzip.compress(bytes(30_000_000), 9),
    "an lzma bomb": lzma.compress(bytes(30_000_000), preset=1),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_take_a_fraction_of_a_second(name):
    assert calls_to_inspect(HOSTILE[name]) < LIMIT_CALLS
    assert min(seconds_to_inspect(HOSTILE[name]) for _ in range(2)) < LIMIT_SECONDS
    assert (
        seconds_to_inspect(HOSTILE[name], mask=lambda path, label: label == "7", max_nodes=10_000, max_depth=10**6)
        < 10 * LIMIT_SECONDS
    )


@pytest.mark.parametrize("name", ["JSON nested 100,000 deep", "JSON nested and closed"])
def test_no_more_levels_are_read_than_anybody_could_look_at(name):
    assert calls_to_inspect(HOSTILE[name]) < 80_000  # several times as many, if all were


# Masks


def no_cost(path, label):
    return label in ("supplier_cost", "password", "sku")


SECRETS = b"990", b"RG-22K-0417"


@pytest.mark.parametrize("pack", [bytes, zlib.compress, lambda payload: payload[:-40]])
@pytest.mark.parametrize("dump", [pickle.dumps, lambda value: json.dumps(value, default=str).encode()])
def test_a_masked_field_is_in_none_of_the_views(pack, dump):
    payload = pack(dump([ITEM] * 3))
    preview = inspect(payload, total_bytes=len(payload) + 1, mask=no_cost)
    field = nodes(preview)["0.supplier_cost"]
    assert (field.text, field.type_name, field.is_masked, field.children) == ("", "", True, ())
    assert json.loads(preview.json)[0]["supplier_cost"] == HIDDEN
    assert f"supplier_cost: {HIDDEN}" in preview.text
    assert preview.hexdump == ""
    shown = repr(preview).encode()
    assert not [secret for secret in SECRETS if secret in shown]


@pytest.mark.parametrize(
    "payload",
    [
        pickle.dumps({b"password": "hunter2", "a": 1}, 2),
        pickle.dumps({"a": {"b": [Point(1, {"password": "hunter2"})]}}),
        pickle.dumps({"a": {"password": ["hunter2"] * 1000}}),
        b'{"password": "hunter2",}',
        b'[{"password": "hunter2"',
        pickle.dumps({"password": "hunter2"})[:-3],
        pickle.dumps({"password": "hunter2"})[3:],
        b"\x01\x02\x03\x04password\x00hunter2\x00\xff\xfe\x05\x06\x07",
        b"(\xb5/\xfdhunter2\x00\x01",
        b"\x1f\x8bhunter2",
    ],
)
def test_a_mask_cannot_be_gone_around(payload):
    assert b"hunter2" in payload or b"h\x75nter2" in payload
    preview = inspect(payload, mask=no_cost)
    assert_sound(preview)
    assert "hunter2" not in repr(preview)
    assert "68 75 6e 74" not in preview.hexdump


def test_a_mask_sees_dotted_paths_and_can_hide_all():
    asked = []
    inspect(pickle.dumps({"a": [{"b": 1}]}), mask=lambda path, label: asked.append((path, label)))
    assert asked == [("", ""), ("a", "a"), ("a.0", "0"), ("a.0.b", "b")]
    hidden = inspect(pickle.dumps("secret"), mask=lambda path, label: True)
    assert (hidden.kind, hidden.text, hidden.hexdump) == (HIDDEN, HIDDEN, "")
    assert "secret" not in repr(hidden)


def test_a_mask_that_raises_hides():
    preview = inspect(pickle.dumps({"a": 1}), mask=lambda path, label: {}[path])
    assert preview.root.is_masked
    assert "the mask failed (KeyError), so what it was asked about is hidden" in preview.warnings


def test_plain_text_is_shown_whole_under_a_mask():
    assert inspect(pickle.dumps("<b>x</b>"), mask=no_cost).hexdump
    assert inspect(b"<b>x</b>", mask=no_cost).text == "<b>x</b>"


# Differences


def test_recomputing_tells_which_fields_differ():
    new = ITEM | {"price": Decimal("1849.00"), "updated": dt.datetime(2026, 11, 22, 2, 41, 37, tzinfo=dt.UTC)}
    old, now = inspect(pickle.dumps([new, ITEM])), inspect(zlib.compress(pickle.dumps([ITEM, ITEM], 4)))
    assert diff(old, now) == (
        Difference("0.price", 'Decimal("1849.00")', 'Decimal("1865.50")'),
        Difference("0.updated", "datetime(2026-11-22 02:41:37+00:00)", "datetime(2026-11-22 03:05:11+00:00)"),
    )
    assert old.field_count == now.field_count == 16
    assert diff(now, now) == ()


def test_what_came_went_or_changed_its_type_differs():
    old = inspect(pickle.dumps({"a": 1, "b": "2", "gone": [1], 1: "x", "1": "y"}))
    new = inspect(pickle.dumps({"a": "1", "b": "2", "here": None, 1: "x", "1": "z"}))
    assert diff(old, new) == (
        Difference("gone", "list, 1 item", None),
        Difference("here", None, "None"),
        Difference("a", "1", '"1"'),
        Difference("1", '"y"', '"z"'),
    )
    longer = diff(inspect(pickle.dumps([1])), inspect(pickle.dumps([1, 2])))
    assert longer == (Difference("", "1 item", "2 items"), Difference("1", None, "2"))


def test_an_unevaluated_queryset_and_an_odd_state_are_shown_as_such():
    class_name = b"cdjango.db.models.query\nQuerySet\n"
    state = push("model") + b"cshop.models\nTenant\n" + push("_query") + b"K\x01" + push("_result_cache") + b"N"
    assert inspect(b"\x80\x02" + class_name + b")\x81}(" + state + b"ub.").kind == "QuerySet"
    odd = inspect(b"\x80\x02cshop.models\nTenant\n)\x81](K\x01K\x02eb.")
    assert odd.text.splitlines()[:2] == ["shop.models.Tenant, 1 part", "  state: list, 2 items"]


def test_long_scalars_differ_behind_what_is_shown():
    for old, new in (("x" * 500 + "a", "x" * 500 + "b"), (2**5000, 2**5000 + 1), (b"x" * 300, b"x" * 299 + b"y")):
        assert len(diff(inspect(pickle.dumps(old)), inspect(pickle.dumps(new)))) == 1


def test_sets_do_not_differ_by_their_order():
    assert diff(inspect(b"\x80\x04\x8f(K\x01K\x02\x90."), inspect(b"\x80\x04\x8f(K\x02K\x01\x90.")) == ()


def test_masked_and_cut_values_tell_only_what_both_show():
    secret = (
        inspect(pickle.dumps({"password": "a"}), mask=no_cost),
        inspect(pickle.dumps({"password": "b"}), mask=no_cost),
    )
    assert diff(*secret) == ()
    payload = pickle.dumps([ITEM] * 100)
    assert diff(inspect(payload[:900], total_bytes=len(payload)), inspect(payload)) == ()
    assert diff(inspect(b"\x00\xff"), inspect(payload)) == ()


# Any bytes at all


FRAGMENTS = [
    b"N", b"(", b".", b")", b"]", b"}", b"\x8f", b"t", b"l", b"d", b"e", b"u", b"a", b"s", b"R", b"b", b"\x81", b"\x92",
    b"0", b"1", b"2", b"\x94", b"h\x00", b"h\x01", b"q\x00", b"\x85", b"\x86", b"\x87", b"\x90", b"\x91", b"\x93", b"o",
    b"K\x05", b"\x8c\x02os", b"\x8c\x06system", b"cos\nsystem\n", b"cdatetime\ndatetime\n", b"cdecimal\nDecimal\n",
    b"cuuid\nUUID\n", b"c__builtin__\ngetattr\n", b"ccollections\nOrderedDict\n", b"ccopyreg\n_reconstructor\n",
    b"cdjango.db.models.base\nmodel_unpickle\n", b"ccopyreg\n__newobj__\n", b"c_codecs\nencode\n", b"\x8c\x06latin1",
    b"cdatetime\ntimezone\n", b"cdatetime\ntimedelta\n", b"ccollections\ndeque\n", b"c__builtin__\nset\n", b"Q",
    b"\x8c\x06_state", b"\x8c\x05model", b"\x8c\x0d_result_cache", b"\x8c\x06_query", b"\x8c\x03int", b"P7\n", b"\x88",
    b"C\x0a\x07\xea\x01\x02\x03\x04\x05\x00\x00\x06", b"C\x04\x07\xea\x01\x01", b"\x8a\x02\xff\x00", b"\x82\x01",
    b"G?\xf8\x00\x00\x00\x00\x00\x00", b"\x96\x01\x00\x00\x00\x00\x00\x00\x00x", b"\x97", b"\x98", b"i__main__\nX\n",
    b"I01\n", b"\x80\x04", b"S'\\x'\n",
]  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=60), st.booleans(), st.booleans())
def test_any_opcodes_make_a_preview(fragments, signed, is_cut):
    payload = (b"\x80\x04" if signed else b"") + b"".join(fragments)
    preview = inspect(payload, total_bytes=len(payload) + is_cut, mask=no_cost if signed and is_cut else None)
    assert_sound(preview)
    assert_sound(inspect(payload, total_bytes=len(payload) + is_cut, max_nodes=5, max_depth=2))


@settings(max_examples=1500, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x80\x05", b"{", b"[", b'["', b"x\x9c", b"\x1f\x8b", b"\x93"]),
    st.booleans(),
)
def test_any_bytes_make_a_preview(data, start, is_cut):
    payload = start + data
    preview = inspect(payload, total_bytes=len(payload) + is_cut)
    assert_sound(preview)
    assert preview.hexdump or not payload
    assert preview.stored_bytes == len(payload) + is_cut


def test_7000_mutated_values_make_previews():
    chance = random.Random(20261122)
    item = InventoryItem(id=7, sku="RG-1", price=Decimal("10.00"), category=Category(id=3, name="Rings"))
    values = [[ITEM, {"x": {1, 2}}], item, collections.OrderedDict(a=uuid.UUID(int=3)), [dt.time(1), Point(1, None)]]
    seeds = [pickle.dumps(value, protocol) for value in values for protocol in PROTOCOLS]
    seeds += [json.dumps(SHORT).encode(), zlib.compress(seeds[0]), gzip.compress(seeds[5]), lzma.compress(seeds[3])]
    seeds += [MSGPACK_ROWS, LZ4_RUBY, ZSTD_RUBY]
    start = time.thread_time()
    for _ in range(7000):
        payload = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(payload))
            match chance.randrange(4):
                case 0:
                    payload[at] = chance.randrange(256)
                case 1:
                    payload[at] ^= 1 << chance.randrange(8)
                case 2:
                    payload[at:at] = chance.randbytes(chance.randint(1, 5))
                case 3:
                    del payload[at : at + chance.randint(1, 5)]
            payload = payload or bytearray(b"N")
        total = len(payload) + chance.choice((0, 0, 1000))
        assert_sound(inspect(bytes(payload), total_bytes=total, mask=chance.choice((None, no_cost))))
    assert (time.thread_time() - start) / 7000 < LIMIT_SECONDS / 30
