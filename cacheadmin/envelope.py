"""What stands before a payload in Redis: whose it is, what it stands on, and notes for people. Pure.

    format 1 · codec 1 · digest 16 · identity 8 · count 1 · epochs · about: length 2 + JSON · payload

Everything up to the epochs is compared, byte for byte, on every read; `about` is for people and never trusted.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, Final

FORMAT: Final = 1
DIGITS: Final = 0
"""Codec: the payload is an integer as decimal digits, so that Redis can count on it."""
VALUE: Final = 1
"""Codec: the payload is what the alias' serializer and compressor made of the value."""
SIGNED: Final = 2
"""Codec: as VALUE, after a signature of 16 bytes."""

EPOCH_BYTES: Final = 8
GROUP_EPOCH_BYTES: Final = 16
SIGNATURE_BYTES: Final = 16
ABOUT_BYTES: Final = 512
_FIXED: Final = 27
_encoder: Final = json.JSONEncoder(separators=(",", ":"), default=str, ensure_ascii=False)


def key_digest(full_key: str) -> bytes:
    """Return the 16 bytes that tell whose value this is."""
    return blake2b(full_key.encode(), digest_size=16).digest()


def proof(full_key: str, identity: bytes, epochs: Sequence[bytes]) -> bytes:
    """Return what a header must hold from its third byte on to be valid: digest, identity, count and epochs."""
    return b"%b%b%c%b" % (key_digest(full_key), identity, len(epochs), b"".join(epochs))


def seal(codec: int, proof: bytes, about: Mapping[str, Any], payload: bytes) -> bytes:
    """Return header + payload. `about` loses its longest texts, then all of it, until it fits in 512 bytes."""
    return b"%c%c%b%b%b" % (FORMAT, codec, proof, _about_bytes(about), payload)


def _about_bytes(about: Mapping[str, Any]) -> bytes:
    notes = {key: value for key, value in about.items() if value not in (None, "", [])}
    text = _json(notes)
    while len(text) > ABOUT_BYTES:
        longest = max(notes, key=lambda key: len(str(notes[key])))
        short = str(notes.pop(longest))
        if len(short) > 80:
            notes[longest] = short[:79] + "…"
        text = _json(notes)
    return struct.pack(">H", len(text)) + text


def _json(notes: Mapping[str, Any]) -> bytes:
    return _encoder.encode(notes).encode("utf-8", "replace")


def open_valid(stored: bytes, proof: bytes) -> tuple[int, memoryview] | None:
    """
    Return codec and payload if the header carries exactly `proof`, else None: a miss.

    Cost:    one comparison; the payload is not copied. Never raises, whatever the bytes.
    """
    end = 2 + len(proof)
    if stored[2:end] != proof or stored[0] != FORMAT or len(stored) < end + 2:
        return None
    start = end + 2 + int.from_bytes(stored[end : end + 2])
    if start > len(stored):
        return None
    return stored[1], memoryview(stored)[start:]


def is_foreign(stored: bytes, full_key: str) -> bool:
    """Say whether a value of ours carries the digest of another key: a reply meant for somebody else."""
    return len(stored) >= _FIXED and stored[0] == FORMAT and stored[2:18] != key_digest(full_key)


@dataclass(frozen=True, slots=True)
class Header:
    """A header taken apart, for pages and commands."""

    codec: int
    digest: bytes
    identity: bytes
    epochs: tuple[bytes, ...]
    """Tenant epoch, group epoch (16 bytes), then those of the tags in declared order."""
    about: Mapping[str, Any]
    """Notes for people: `fn` function, `args`, `tags`, `at` computed at (seconds), `took` ms, `by` process, `rel`."""
    payload_start: int


def parse(stored: bytes) -> Header | None:
    """Take a header apart; None if it is not one. `stored` may be only the beginning of a value. Never raises."""
    if len(stored) < _FIXED or stored[0] != FORMAT or stored[26] < 2:
        return None
    count = stored[26]
    end = _FIXED + GROUP_EPOCH_BYTES + EPOCH_BYTES * (count - 1)
    if len(stored) < end + 2:
        return None
    first, group = _FIXED + EPOCH_BYTES, _FIXED + EPOCH_BYTES + GROUP_EPOCH_BYTES
    tags = (stored[i : i + EPOCH_BYTES] for i in range(group, end, EPOCH_BYTES))
    start = end + 2 + int.from_bytes(stored[end : end + 2])
    try:
        about = json.loads(stored[end + 2 : start])
    except (ValueError, RecursionError):
        about = {}
    return Header(
        codec=stored[1],
        digest=stored[2:18],
        identity=stored[18:26],
        epochs=(stored[_FIXED:first], stored[first:group], *tags),
        about=about if isinstance(about, dict) else {},
        payload_start=start,
    )


def header_bytes_limit(tags: int) -> int:
    """Return the most bytes that a header with this many tags can take: how much a page has to read."""
    return _FIXED + EPOCH_BYTES + GROUP_EPOCH_BYTES + EPOCH_BYTES * tags + 2 + ABOUT_BYTES


def sign(payload: bytes, proof: bytes, key: bytes) -> bytes:
    """
    Return a signature of the payload for this key, then the payload (Aumasson et al., BLAKE2, 2013, keyed mode).

    Only the key's digest is signed along, the first 16 bytes of `proof`: a plain `set` does not know its epochs.
    """
    return _signature(payload, proof, key) + payload


def verified(signed: memoryview, proof: bytes, key: bytes) -> memoryview | None:
    """Return the payload if its signature holds, else None."""
    payload = signed[SIGNATURE_BYTES:]
    return payload if compare_digest(bytes(signed[:SIGNATURE_BYTES]), _signature(payload, proof, key)) else None


def _signature(payload: bytes | memoryview, proof: bytes, key: bytes) -> bytes:
    made = blake2b(proof[:16], digest_size=SIGNATURE_BYTES, key=key[:64])
    made.update(payload)
    return made.digest()
