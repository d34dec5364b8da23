"""Undo the compression of a stored value, as far as is needed and no further: a bomb gives its first bytes and a count.

`lz4` and `zstd` are read where their packages are installed.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from django.utils.translation import gettext

from .values import count

COUNTED_BYTES: Final = 4 * 1024 * 1024
"""How much is decompressed, and thrown away, to learn the size of a value; beyond, it stays unknown."""
LZMA_BYTES: Final = 80 * 1024 * 1024
"""Memory that lzma's dictionary may take: what its strongest preset (9) needs."""
ZSTD_WINDOW_LOG: Final = 25
"""Largest window that zstd may use, 32 MB: all levels but `--ultra`."""
_ZSTD_WINDOW_LOG_MAX: Final = 100
"""Number of that parameter, `ZSTD_d_windowLogMax` in zstd.h."""
_INPUT_STEP: Final = 512
_OUTPUT_STEP: Final = 64 * 1024


def optional(*names: str) -> Any:
    """Import the first of these modules that is installed, or return None."""
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


LZ4: Any = optional("lz4.frame")
ZSTD: Any = optional("compression.zstd", "backports.zstd", "pyzstd")


@dataclass(frozen=True, slots=True)
class Expanded:
    """A value's bytes with its compression undone, as far as allowed."""

    data: bytes
    compressor: str
    memory_bytes: int | None
    is_cut: bool
    warnings: tuple[str, ...] = ()
    is_readable: bool = True
    """False: `data` is still what is stored."""
    is_damaged: bool = False
    """It ends before it should, though all of it was given."""


def expand(stored: bytes, *, is_cut: bool, max_bytes: int) -> Expanded:
    """
    Undo zlib, gzip, lzma, lz4 or zstd, recognised by their first bytes.

    Returns: at most `max_bytes`; bytes that only look compressed come back as they are.
    Cost:    decompresses at most 4 MiB, to count them.
    """
    found = next((name for magic, name in _MAGIC if stored.startswith(magic)), "")
    if not found or (found == "zlib" and (len(stored) < 2 or int.from_bytes(stored[:2]) % 31)):
        return Expanded(stored, "", None if is_cut else len(stored), is_cut)
    open_, package = _OPENERS[found]
    stream = open_()
    if stream is None:
        text = gettext("compressed with %(name)s, which cannot be read here: install the package %(package)s")
        warning = text % {"name": found, "package": package}
        return Expanded(stored, found, None, is_cut, (warning,), is_readable=False)
    kept, total, left, problem = _pump(stream, stored, max_bytes)
    is_early = not problem and not stream.eof and not is_cut and total < COUNTED_BYTES
    if not total and (problem or not stream.eof):
        if found == "zlib":  # any text may begin with "x^"
            return Expanded(stored, "", None if is_cut else len(stored), is_cut)
        text = gettext("looks like %(name)s, but cannot be decompressed: %(why)s")
        warning = text % {"name": found, "why": problem or gettext("it ends early")}
        return Expanded(stored, found, None, is_cut, (warning,), is_readable=False)
    warnings = []
    if problem or is_early:
        text = gettext("damaged: %(name)s stops after %(size)s (%(why)s)")
        why = problem or gettext("it ends early")
        warnings.append(text % {"name": found, "size": count(total, "bytes"), "why": why})
    if stream.eof and left:
        warnings.append(gettext("more after the compressed bytes: %(size)s") % {"size": count(left, "bytes")})
    return Expanded(
        kept,
        found,
        memory_bytes=total if stream.eof else None,
        is_cut=not stream.eof or total > max_bytes,
        warnings=tuple(warnings),
        is_damaged=bool(problem) or is_early,
    )


def _pump(stream: Any, stored: bytes, max_bytes: int) -> tuple[bytes, int, int, str]:
    """
    Return the first `max_bytes` that come out, how many came out (up to a limit), how many bytes were left, and what
    went wrong. The input goes in by small pieces, since an error takes along what the same piece had given.
    """
    kept, total, fed, tail = bytearray(), 0, 0, b""
    limit = max(COUNTED_BYTES, max_bytes)
    while total < limit and not stream.eof:
        if not tail and getattr(stream, "needs_input", True):
            tail = stored[fed : fed + _INPUT_STEP]
            fed += len(tail)
        is_last = not tail
        try:
            made = stream.decompress(tail, _OUTPUT_STEP)
        except Exception as error:  # noqa: BLE001 - each package has an error of its own
            return bytes(kept), total, 0, str(error)[:100] or type(error).__name__
        tail = getattr(stream, "unconsumed_tail", b"")
        kept += made[: max(max_bytes - len(kept), 0)]
        total += len(made)
        if is_last and not made and getattr(stream, "needs_input", True):
            break
    return bytes(kept), total, len(stored) - fed + len(stream.unused_data or b""), ""


def _zstd() -> Any:
    return ZSTD and ZSTD.ZstdDecompressor(None, {_ZSTD_WINDOW_LOG_MAX: ZSTD_WINDOW_LOG})


_MAGIC: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\x00", "lzma"),
    (b'\x04"M\x18', "lz4"),
    (b"(\xb5/\xfd", "zstd"),
    (b"x", "zlib"),
)
_OPENERS: Final[dict[str, tuple[Callable[[], Any], str]]] = {
    "gzip": (lambda: zlib.decompressobj(wbits=31), ""),
    "zlib": (zlib.decompressobj, ""),
    "lzma": (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_BYTES), ""),
    "lz4": (lambda: LZ4 and LZ4.LZ4FrameDecompressor(), "lz4"),
    "zstd": (_zstd, "backports.zstd"),
}
