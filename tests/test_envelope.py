"""What stands before a payload: only the very same bytes are valid, and nothing stored can make a read fail."""

from __future__ import annotations

import json
import os
import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cacheadmin import envelope
from cacheadmin.envelope import (
    ABOUT_BYTES,
    FORMAT,
    VALUE,
    header_bytes_limit,
    is_foreign,
    key_digest,
    open_valid,
    parse,
    proof,
    seal,
    sign,
    verified,
)

thorough = settings(max_examples=10_000 if os.environ.get("CI") else 300, deadline=None)
brief = settings(max_examples=1_000 if os.environ.get("CI") else 200, deadline=None)

KEY = "shop:1:{query:1}:v:inventory:x"
IDENTITY = b"identity"
TENANT, GROUP, TAGS = b"t" * 8, b"t" * 8 + b"g" * 8, (b"1" * 8, b"2" * 8)
PROOF = proof(KEY, IDENTITY, (TENANT, GROUP, *TAGS))
ABOUT = {"fn": "shop.inventory", "args": "branch_id=5", "tags": ["branch:5"], "at": 1700000000.5, "took": 3.2}
PAYLOAD = pickle.dumps({"a": 1})
STORED = seal(VALUE, PROOF, ABOUT, PAYLOAD)


def test_header_is_laid_out_as_the_protocol_says() -> None:
    about = json.dumps(ABOUT, separators=(",", ":")).encode()
    epochs = TENANT + GROUP + b"".join(TAGS)
    fixed = bytes([FORMAT, VALUE]) + key_digest(KEY) + IDENTITY + bytes([4]) + epochs
    assert fixed + len(about).to_bytes(2) + about + PAYLOAD == STORED


def test_valid_header_gives_its_payload_without_copying() -> None:
    codec, payload = open_valid(STORED, PROOF)
    assert codec == VALUE
    assert payload == PAYLOAD
    assert payload.obj is STORED
    assert open_valid(seal(0, PROOF, {}, b""), PROOF) == (0, b"")


def test_parsed_header_tells_everything_about_an_entry() -> None:
    header = parse(STORED)
    assert header == envelope.Header(
        codec=VALUE,
        digest=key_digest(KEY),
        identity=IDENTITY,
        epochs=(TENANT, GROUP, *TAGS),
        about=ABOUT,
        payload_start=len(STORED) - len(PAYLOAD),
    )
    assert parse(STORED[: header_bytes_limit(2)]).about == ABOUT


def test_other_key_server_and_epochs_are_not_valid() -> None:
    epochs = (TENANT, GROUP, *TAGS)
    others = [
        proof(KEY + "x", IDENTITY, epochs),
        proof(KEY, b"another!", epochs),
        proof(KEY, IDENTITY, epochs[:2]),
        proof(KEY, IDENTITY, (*epochs, b"3" * 8)),
        proof(KEY, IDENTITY, (TENANT, GROUP, *reversed(TAGS))),
        proof(KEY, IDENTITY, (b"u" * 8, GROUP, *TAGS)),
        proof(KEY, IDENTITY, (TENANT, b"t" * 8 + b"h" * 8, *TAGS)),
        proof(KEY, IDENTITY, (TENANT, GROUP, TAGS[0], b"3" * 8)),
    ]
    assert [open_valid(STORED, other) for other in others] == [None] * len(others)
    assert is_foreign(STORED, KEY + "x")
    assert not is_foreign(STORED, KEY)
    assert not is_foreign(b"plain bytes of somebody else, long enough", KEY)
    assert not is_foreign(b"", KEY)


@thorough
@given(st.data())
def test_mutated_bytes_are_misses_and_never_exceptions(data: st.DataObject) -> None:
    mutated = bytearray(STORED)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(mutated) - 1)))
        how = data.draw(st.sampled_from(["flip", "insert", "cut", "drop"]))
        if how == "flip" and mutated:
            mutated[at] ^= data.draw(st.integers(1, 255))
        elif how == "insert":
            mutated[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        elif how == "drop":
            del mutated[at : at + data.draw(st.integers(1, 9))]
        else:
            del mutated[at:]
    stored, end = bytes(mutated), 2 + len(PROOF)
    opened = open_valid(stored, PROOF)
    is_intact = stored[:1] + stored[2:end] == STORED[:1] + STORED[2:end]
    if not is_intact:
        assert opened is None
    parse(stored)
    is_foreign(stored, KEY)


@brief
@given(st.binary(max_size=700))
@example(b"\x01")
@example(bytes([FORMAT]) * 27)
@example(bytes([FORMAT, VALUE]) + bytes(24) + b"\xff" + bytes(3000))
@example(STORED[:60])
@example(bytes([FORMAT, 1]) + bytes(24) + b"\x02" + bytes(24) + b"\x00\x05[[[[[")
@example(bytes([FORMAT, 1]) + bytes(24) + b"\x02" + bytes(24) + b"\x01\x00" + b"[" * 256)
def test_any_bytes_can_be_looked_at(stored: bytes) -> None:
    assert open_valid(stored, PROOF) is None
    header = parse(stored)
    assert header is None or isinstance(header.about, dict)
    is_foreign(stored, KEY)


notes = st.dictionaries(
    st.text(max_size=20),
    st.one_of(
        st.none(), st.text(st.characters(), max_size=900), st.floats(), st.lists(st.text(max_size=200)), st.binary()
    ),
    max_size=8,
)


@brief
@given(notes)
@example({"fn": "x" * 60_000, "args": "ü" * 60_000})
@example({"k" * 5000: "v"})
@example({"a": "\x00" * 600, "b": "\ud800" * 600, "c": "😀" * 600})
@example({str(i): "y" * 70 for i in range(40)})
def test_notes_take_512_bytes_at_most_and_stay_readable(about: dict) -> None:
    stored = seal(VALUE, PROOF, about, PAYLOAD)
    assert len(stored) <= len(PROOF) + 2 + 2 + ABOUT_BYTES + len(PAYLOAD)
    assert open_valid(stored, PROOF) == (VALUE, PAYLOAD)
    header = parse(stored)
    assert stored[header.payload_start :] == PAYLOAD
    assert set(header.about) <= set(about)
    assert len(stored) - len(PAYLOAD) <= header_bytes_limit(2)


def test_longest_texts_are_shortened_first() -> None:
    header = parse(seal(VALUE, PROOF, {"fn": "shop.f", "args": "x" * 2000, "tags": ["a"], "rel": None}, b""))
    assert header.about == {"fn": "shop.f", "args": "x" * 79 + "…", "tags": ["a"]}


@brief
@given(st.binary(max_size=40), st.integers(0, 100), st.integers(1, 255))
def test_signature_breaks_with_any_byte(payload: bytes, at: int, flip: int) -> None:
    signed = sign(payload, PROOF, b"secret")
    assert verified(memoryview(signed), PROOF, b"secret") == payload
    broken = bytearray(signed)
    broken[at % len(broken)] ^= flip
    assert verified(memoryview(broken), PROOF, b"secret") is None
    assert verified(memoryview(signed), PROOF, b"other") is None
    assert verified(memoryview(signed), proof("another key", IDENTITY, ()), b"secret") is None


@pytest.mark.parametrize("length", [0, 1, 15, 16])
def test_signature_that_is_cut_is_none(length: int) -> None:
    assert verified(memoryview(sign(b"x", PROOF, b"k"))[:length], PROOF, b"k") is None


def test_secret_key_of_any_length_signs() -> None:
    for key in (b"", b"k", b"k" * 64, b"k" * 500):
        assert verified(memoryview(sign(b"x", PROOF, key)), PROOF, key) == b"x"
