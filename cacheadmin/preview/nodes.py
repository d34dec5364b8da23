"""The tree that pages and commands show: its nodes, its limits, its masked fields, and what differs between two."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Protocol

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .values import DIGIT_BITS, clip, fingerprint, inline, left_out
from .views import View, describe

DEEPEST: Final = 100
"""No tree is deeper, whatever was asked for: JSON and outlines are written by recursion."""

FAIR_SHARE: Final = 4
"""A container first shows at most this part of all nodes: a quarter."""
LABEL_LIMIT: Final = 100
HIDDEN: Final = _("hidden by mask")


class Mask(Protocol):
    """Say whether the field named `label` at `path` (as `Node.path`) must not be shown. If it raises, it is not."""

    def __call__(self, path: str, label: str, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a tree. All texts are safe to print: what does not print stands in them as escapes."""

    label: str
    """Key, index or field name; "" for the root."""
    type_name: str
    text: str
    """A scalar as Python would write it, shortened; the size of a container: "7 keys"."""
    children: tuple[Node, ...] = ()
    more: int = 0
    """Children that are known but left out."""
    is_masked: bool = False
    path: str = ""
    """Labels from the root down, joined by dots; dots in a label are written `\\.`."""
    digest: str = ""
    """Of a scalar that `text` does not show whole, so that two can be compared."""

    is_leaf: bool = True
    """False for a container, be it empty."""

    @property
    def size(self) -> int:
        return len(self.children) + self.more


@dataclass(frozen=True, slots=True)
class Preview:
    """A stored value as far as it can be told without running it."""

    kind: str
    """One line: "list, 41 items"."""
    serializer: str
    """"pickle 5", "json", "msgpack", "integer", "text", "bytes"."""
    compressor: str
    """"zlib", "gzip", "lz4", "zstd", "lzma", or "" for none."""
    stored_bytes: int
    memory_bytes: int | None
    """Size once decompressed, if known."""
    root: Node | None
    text: str | None
    json: str | None
    hexdump: str
    """Of the decompressed bytes; "" where a mask could be seen through in it."""
    warnings: tuple[str, ...] = ()
    is_truncated: bool = False
    """The bytes went on beyond what was read."""

    @property
    def field_count(self) -> int:
        """The number of values that stand in the tree and can be compared: leaves that no mask hides."""
        return sum(1 for node in walk(self.root) if node.is_leaf and not node.is_masked)


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that differs between two previews; `was` or `now` is None where it was not there at all."""

    path: str
    was: str | None
    now: str | None


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree, the same as plain data for JSON, and what befell on the way."""

    root: Node
    plain: Any
    mask_errors: tuple[str, ...]


@dataclass(slots=True)
class _Draft:
    """A node in the making."""

    label: str
    path: str
    parent: _Draft | None
    value: object
    view: View
    depth: int = 0
    is_masked: bool = False
    same_as: _Draft | None = None
    entries: Iterator[tuple[object, object]] = field(default_factory=lambda: iter(()))
    more: int = 0
    """Entries that are not drafts yet."""
    children: list[Node] = field(default_factory=list)
    plains: list[Any] = field(default_factory=list)


def build(value: object, *, mask: Mask | None, max_nodes: int, max_depth: int, max_chars: int) -> Tree:
    """
    Turn a value into a tree of at most `max_nodes` nodes, level by level, so that the outline comes before details. No
    container takes more than its share before all have been asked: of a long list, the first items are opened.

    What stands in several places is shown in each; what stands within itself is shown as a reference.
    Cost: grows with the nodes made, not with the value. `max_chars` bounds the strings in `plain`.
    """
    errors: dict[str, None] = {}
    drafts = [_draft("", "", None, value, mask, errors)]
    for limit in (max(max_nodes // FAIR_SHARE, 1), max_nodes):
        for current in drafts:  # it grows meanwhile
            if current.more and current.depth < min(max_depth, DEEPEST):
                for key, child in islice(current.entries, max(min(limit, max_nodes - len(drafts)), 0)):
                    label, name = _labels(key)
                    drafts.append(_draft(label, name, current, child, mask, errors))
                    current.more -= 1

    root, plain = _ROOTLESS
    for current in reversed(drafts):  # children stand behind their parents
        root, plain = _node(current), _plain(current, max_chars)
        if isinstance(plain, str):
            max_chars = max(max_chars - len(plain), 0)
        if current.parent is not None:
            current.parent.children.append(root)
            current.parent.plains.append(plain)
    return Tree(root, plain, tuple(errors))


_ROOTLESS: Final[tuple[Node, Any]] = Node("", "", ""), None


def _draft(
    label: str, name: str, parent: _Draft | None, value: object, mask: Mask | None, errors: dict[str, None]
) -> _Draft:
    path = _join(parent.path, label) if parent is not None else ""
    if mask is not None:
        try:
            is_masked = bool(mask(path, name))
        except Exception as error:  # noqa: BLE001 - the site's own code: what it cannot judge stays hidden
            is_masked, errors[type(error).__name__] = True, None
        if is_masked:
            return _Draft(label, path, parent, None, View("", "", plain=str(HIDDEN)), is_masked=True)
    draft = _Draft(label, path, parent, value, describe(value), depth=parent.depth + 1 if parent is not None else 0)
    while parent is not None and draft.view.size:
        if parent.value is value:
            draft.same_as = parent
        parent = parent.parent
    if draft.same_as is None:
        draft.entries, draft.more = iter(draft.view.entries), draft.view.size
    return draft


def _labels(key: object) -> tuple[str, str]:
    """Return a key as it is shown, and as a mask knows it."""
    if isinstance(key, str):
        return clip(key, LABEL_LIMIT), key
    view = None if isinstance(key, int) else describe(key)
    shown = clip(view.text if view is not None and view.shape == "leaf" else inline(key, 2), LABEL_LIMIT)
    raw = view.raw if view is not None else None
    return shown, raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw if isinstance(raw, str) else shown


def _join(path: str, label: str) -> str:
    label = label.replace("\\", "\\\\").replace(".", "\\.")
    return f"{path}.{label}" if path else label


def _node(draft: _Draft) -> Node:
    view = draft.view
    if draft.same_as is not None:
        return Node(draft.label, view.type_name, _reference(draft.same_as), path=draft.path)
    children = tuple(reversed(draft.children))
    digest = fingerprint(view.raw)
    is_leaf = view.shape == "leaf"
    return Node(
        draft.label, view.type_name, view.text, children, draft.more, draft.is_masked, draft.path, digest, is_leaf
    )


def _reference(above: _Draft) -> str:
    return gettext("the same as %(path)s") % {"path": above.path} if above.path else gettext("the same as the whole")


def _plain(draft: _Draft, room: int) -> Any:
    """Return a draft as what `json` can write, its strings cut to `room` characters."""
    view, rest = draft.view, left_out(draft.more) if draft.more else "…" if draft.view.is_open else ""
    if draft.same_as is not None:
        return _reference(draft.same_as)
    if view.shape == "list":
        return [*reversed(draft.plains), *([rest] if rest else ())]
    if view.shape == "dict":
        made: dict[str, Any] = {}
        for node, plain in zip(reversed(draft.children), reversed(draft.plains), strict=True):
            label = node.label
            while label in made:  # a key that comes twice, or 1 beside "1"
                label += "'"
            made[label] = plain
        return made | ({"…": rest} if rest else {})
    plain = view.plain
    if isinstance(plain, str):
        return plain if len(plain) <= room else plain[:room] + "…"
    if isinstance(plain, float):
        return plain if math.isfinite(plain) else view.text
    is_writable = plain is None or (isinstance(plain, int) and plain.bit_length() <= DIGIT_BITS)
    return plain if is_writable else view.text


def to_json(plain: Any) -> str:
    """Write plain data as indented JSON; what does not print is escaped, other letters are not."""
    text = json.dumps(plain, ensure_ascii=False, indent=2)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def outline(root: Node) -> str:
    """Write a tree as indented lines."""
    lines: list[str] = []
    waiting = [(0, root)]
    while waiting:
        depth, node = waiting.pop()
        label = f"{node.label}: " if node.label else ""
        type_name = "" if node.is_leaf else f"{node.type_name}, "
        lines.append(f"{'  ' * depth}{label}{HIDDEN if node.is_masked else type_name + node.text}")
        if node.more:
            waiting.append((depth + 1, Node("", "", left_out(node.more))))
        waiting += ((depth + 1, child) for child in reversed(node.children))
    return "\n".join(lines)


def walk(root: Node | None) -> Iterator[Node]:
    """Yield a node and all below it."""
    waiting = [root] if root is not None else []
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.children)


def diff(old: Preview, new: Preview) -> tuple[Difference, ...]:
    """
    Return what differs between two previews, as far as both show it: masked fields and what was left out are not told.

    Lists are compared place by place. A value that changed its type is one difference, whatever is below it.
    """
    if old.root is None or new.root is None:
        return ()
    is_whole = not (old.is_truncated or new.is_truncated)
    found: list[Difference] = []
    waiting = [(old.root, new.root)]
    while waiting:
        was, now = waiting.pop()
        if was.is_masked or now.is_masked:
            continue
        if was.type_name != now.type_name:
            found.append(Difference(was.path, _typed(was), _typed(now)))
            continue
        if (was.text, was.digest) != (now.text, now.digest) and (is_whole or (was.is_leaf and now.is_leaf)):
            found.append(Difference(was.path, was.text, now.text))
        befores, afters = _by_label(was), _by_label(now)
        pairs = [(befores[label], afters[label]) for label in befores if label in afters]
        waiting += reversed(pairs)
        if is_whole and not now.more:
            found += (Difference(node.path, _typed(node), None) for key, node in befores.items() if key not in afters)
        if is_whole and not was.more:
            found += (Difference(node.path, None, _typed(node)) for key, node in afters.items() if key not in befores)
    return tuple(found)


def _typed(node: Node) -> str:
    return node.text if node.is_leaf else f"{node.type_name}, {node.text}"


def _by_label(node: Node) -> dict[tuple[str, int], Node]:
    """Return children by label; one that comes twice is told apart by its place among its likes."""
    seen: Counter[str] = Counter()
    made: dict[tuple[str, int], Node] = {}
    for child in node.children:
        made[child.label, seen[child.label]] = child
        seen[child.label] += 1
    return made
