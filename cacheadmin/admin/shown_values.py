"""A value as a page shows it: masked as the site asks, and never so much of it that the page grows large."""

from __future__ import annotations

from typing import Final

from django.utils.html import escape

from cacheadmin.preview import MAX_NODES, Node, Preview, inspect

from .masks import mask

PAGE_BYTES: Final = 48_000
"""Bytes of HTML that a value may take, whatever it holds."""

NODE_BYTES: Final = 220
"""Bytes of HTML around the texts of one node, about."""


def preview_of(payload: bytes, total_bytes: int | None) -> Preview:
    """Return a value as far as it can be shown without running it; of hostile texts fewer nodes than of others."""
    found = inspect(payload, total_bytes=total_bytes, mask=mask())
    if found.root is not None and (size := _html_bytes(found.root)) > PAGE_BYTES:
        fewer = max(10, MAX_NODES * PAGE_BYTES // size)
        found = inspect(payload, total_bytes=total_bytes, mask=mask(), max_nodes=fewer)
    return found


def _html_bytes(root: Node) -> int:
    total, waiting = 0, [root]
    while waiting:
        node = waiting.pop()
        total += NODE_BYTES + len(escape(node.label + node.text).encode("utf-8", "replace"))
        waiting += node.children
    return total


def fitting(text: str) -> tuple[str, int]:
    """Return as much of a text as may stand on a page, and how many characters were left out."""
    kept, size = 0, 0
    for chunk in range(0, len(text), 256):
        size += len(escape(text[chunk : chunk + 256]).encode("utf-8", "replace"))
        if size > PAGE_BYTES:
            break
        kept = chunk + 256
    shown = text[:kept]
    return shown, len(text) - len(shown)
