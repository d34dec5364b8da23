"""Read a pickle without running it: its opcodes move inert data about, so no name is looked up and nothing is called.

The machine is that of Python's `pickle` (opcodes as in `pickletools`), except that GLOBAL leaves a name and REDUCE,
NEWOBJ and BUILD leave a note of the call. It never recurses, and its time and memory grow with the payload alone.
"""

from __future__ import annotations

import io
import pickletools
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from django.utils.translation import gettext

from .values import NAME_LIMIT, Call, Map, Name, Seq, clip, dotted, number

_KINDS: Final[dict[str, Literal["list", "tuple", "frozenset"]]] = {
    "LIST": "list",
    "TUPLE": "tuple",
    "FROZENSET": "frozenset",
}
_STATES_LIMIT: Final = 8
"""BUILDs that one object may get; Python writes one."""

_RISKY: Final = re.compile(
    "_io|_posixsubprocess|asyncio|bdb|cProfile|code|codeop|commands|ctypes|functools|gc|http|imp|importlib|inspect|io"
    "|linecache|logging|marshal|multiprocessing|nt|operator|os|pdb|pickle|pip|pkgutil|platform|popen2|posix|profile|pty"
    "|pydoc|runpy|setuptools|shelve|shutil|signal|site|smtplib|socket|ssl|subprocess|sys|tempfile|threading|timeit|trace"
    "|types|urllib|venv|webbrowser|xmlrpc"
)
"""Modules that no cached value needs and that attacks go through. A list of warnings, not a fence: nothing is run."""
_RISKY_BUILTINS: Final = re.compile(
    "__import__|breakpoint|compile|delattr|eval|exec|execfile|file|globals|input|locals|map|open|setattr|vars"
)
_RENAMED: Final = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""What protocols 0 to 2 call modules that Python 3 renamed."""

_STRINGS: Final = {
    b"X": (4, "utf-8"), b"\x8c": (1, "utf-8"), b"\x8d": (8, "utf-8"), b"T": (4, "latin-1"), b"U": (1, "latin-1"),
    b"B": (4, ""), b"C": (1, ""), b"\x8e": (8, ""), b"\x96": (8, ""),
}  # fmt: skip
"""Opcodes of strings with a length in front: bytes of the length, encoding ("" for bytes)."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What a pickle holds. `problem` says why reading ended early, "" if it ended at its STOP."""

    root: object
    protocol: int
    opcodes: int
    consumed: int
    problem: str
    is_cut: bool
    """The bytes ended before the pickle did, as they do when only the beginning of a value was read."""
    risky_names: tuple[str, ...]


class _MalformedError(ValueError):
    """An opcode that Python's own machine would refuse here."""


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[tuple[list[Any], bool]] = []
        """The stacks below each open mark, and whether what follows the mark goes into the top of that stack."""
        self.memo: dict[int, Any] = {}
        self.protocol = 0
        self.fills = False
        self.risky: dict[str, None] = {}

    def since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.outer.pop()[0]
        return items

    def take(self, size: int) -> list[Any]:
        if len(self.stack) < size:
            raise _MalformedError(gettext("needs more values than there are"))
        items = self.stack[len(self.stack) - size :]
        del self.stack[len(self.stack) - size :]
        return items

    def name(self, module: object, qualname: object) -> Name:
        if not isinstance(module, str) or not isinstance(qualname, str):
            raise _MalformedError(gettext("a name that is no text"))
        module, qualname = _RENAMED.get(module, module)[:NAME_LIMIT], qualname[:NAME_LIMIT]
        name = Name(module, qualname)
        first, *rest = qualname.split(".")
        # A dotted name reaches into what a module imported: `shop.models`, `os.system`.
        if (
            _RISKY.fullmatch(module.partition(".")[0])
            or any(map(_RISKY.fullmatch, (first, *rest)[:-1]))
            or (module == "builtins" and (rest or _RISKY_BUILTINS.fullmatch(first)))
        ):
            self.risky[clip(name.dotted)] = None
        return name

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Seq) and target.kind in ("list", "set"):
            target.values.extend(items)
        elif isinstance(target, Call):
            target.values = target.values or []
            target.values.extend(items)
        else:
            raise _MalformedError(gettext("items for what takes none"))

    def update(self, items: list[Any]) -> None:
        target, pairs = self.stack[-1], zip(items[::2], items[1::2], strict=True)
        if isinstance(target, Map):
            target.pairs.extend(pairs)
        elif isinstance(target, Call):
            target.pairs = target.pairs or []
            target.pairs.extend(pairs)
        else:
            raise _MalformedError(gettext("keys for what takes none"))

    def call(self, target: object, args: object, kwargs: object = None, *, is_new: bool = False) -> None:
        if not isinstance(args, Seq) or args.kind != "tuple":
            raise _MalformedError(gettext("arguments that are no tuple"))
        if isinstance(target, Name) and target.dotted == "builtins.getattr":
            owner, *path = args.values or [None]
            if isinstance(owner, Name) and len(path) == 1 and isinstance(path[0], str):
                # How protocols 0 to 3 name what is inside a class, and all of them a time zone.
                self.stack.append(self.name(owner.module, f"{owner.qualname}.{path[0][:NAME_LIMIT]}"))
                return
            self.risky[target.dotted] = None
        self.stack.append(Call(target, args.values, kwargs, is_new))

    def build(self, made: object, state: object) -> None:
        if not isinstance(made, Call):
            made = Call(made, [])  # a state forced upon a plain value or a class: a trick, so show it
        made.states = made.states or []
        self.stack.append(made)
        if len(made.states) >= _STATES_LIMIT:
            raise _MalformedError(gettext("too many states for one object"))
        made.states.append(state)

    def step(self, op: str, arg: Any) -> None:
        """Do one opcode. Raises ValueError, IndexError or KeyError where Python's machine would fail."""
        push = self.stack.append
        match op:
            case _ if op in _PUSHED:
                push(arg)
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[arg] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                push(self.memo[arg])
            case "MARK":
                self.outer.append((self.stack, self.fills))
                self.stack = []
            case "EMPTY_LIST":
                push(Seq("list", []))
            case "EMPTY_DICT":
                push(Map([]))
            case "EMPTY_TUPLE":
                push(Seq("tuple", []))
            case "EMPTY_SET":
                push(Seq("set", []))
            case "APPENDS" | "ADDITEMS":
                self.append(self.since_mark())
            case "APPEND":
                self.append(self.take(1))
            case "SETITEMS":
                self.update(self.since_mark())
            case "SETITEM":
                self.update(self.take(2))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(Seq("tuple", self.take(int(op[-1]))))
            case "LIST" | "TUPLE" | "FROZENSET":
                items = self.since_mark()
                self.stack.append(Seq(_KINDS[op], items))
            case "DICT":
                items = self.since_mark()
                self.stack.append(Map([]))
                self.update(items)
            case "NEWTRUE" | "NEWFALSE":
                push(op == "NEWTRUE")
            case "STACK_GLOBAL":
                push(self.name(*self.take(2)))
            case "GLOBAL":
                push(self.name(*arg.split(" ", 1)))
            case "REDUCE":
                self.call(*self.take(2))
            case "NEWOBJ":
                self.call(*self.take(2), is_new=True)
            case "NEWOBJ_EX":
                self.call(*self.take(3), is_new=True)
            case "BUILD":
                self.build(*self.take(2))
            case "INST":
                items = self.since_mark()
                self.stack.append(Call(self.name(*arg.split(" ", 1)), items, is_new=True))
            case "OBJ":
                target, *items = self.since_mark()
                self.stack.append(Call(target, items, is_new=True))
            case "DUP":
                push(self.stack[-1])
            case "POP" if self.stack:
                self.stack.pop()
            case "POP" | "POP_MARK":
                self.since_mark()
            case "PROTO":
                self.protocol = arg
            case "BYTEARRAY8":
                push(Call(Name("builtins", "bytearray"), [bytes(arg)]))
            case "NEXT_BUFFER":
                push(Name("", "a buffer kept elsewhere"))
            case "EXT1" | "EXT2" | "EXT4":
                push(Name("", f"extension {arg}"))
            case "PERSID" | "BINPERSID":
                push(Call(Name("", "persistent id"), [arg] if op == "PERSID" else self.take(1)))
            case _:  # FRAME, STOP and READONLY_BUFFER say nothing about the value
                pass

    def close(self) -> object:
        """Put what was complete into what was being filled, innermost first, and return the root."""
        while self.outer:
            items = self.stack
            self.stack, fills = self.outer.pop()
            _nest(items, is_all=self.protocol == 0)
            target = self.stack[-1] if fills and self.stack else None
            if isinstance(target, Seq):
                target.values += items
            elif isinstance(target, Map):
                target.pairs += zip(items[::2], items[1::2], strict=False)
            elif isinstance(target, Call) and _are_pairs(target, items):
                target.pairs = [*(target.pairs or ()), *zip(items[::2], items[1::2], strict=False)]
            elif isinstance(target, Call):
                target.values = [*(target.values or ()), *items]
            elif items:
                target = Seq("tuple", items)
                self.stack.append(target)
            if target is not None:
                target.is_open = True
        del self.stack[_DEEPEST:]
        _nest(self.stack, is_all=True)
        if len(self.stack) < 2:
            return self.stack[0] if self.stack else None
        return Seq("tuple", self.stack, is_open=True)


def _nest(items: list[Any], *, is_all: bool) -> None:
    """
    Put the last values, which wait on the stack, where they were about to go: arguments behind the name, a state into
    its object, the only item into its list. A guess: what is complete may wait for something else, so without `is_all`
    only open values are moved. It errs at most by the place of the last value.
    """
    while len(items) > 1:
        last, before = items[-1], items[-2]
        target: Any = None
        size = 1
        names = [i for i in range(max(len(items) - 4, 0), len(items) - 1) if isinstance(items[i], Name)]
        if names:
            size = len(items) - names[-1] - 1
            target = items[names[-1]] = Call(items[names[-1]], items[names[-1] + 1 :])
        elif not (is_all or getattr(last, "is_open", False)):
            return
        elif isinstance(last, Map) and isinstance(before, Call):
            target = before
            target.states = [*(target.states or ()), last]
        elif isinstance(before, Seq) and before.kind in ("list", "set") and (is_all or not before.values):
            target = before
            target.values.append(last)
        elif len(items) > 2 and isinstance(items[-3], Map) and (is_all or not items[-3].pairs):
            target, size = items[-3], 2
            target.pairs.append((before, last))
        elif is_all and isinstance(before, Map):
            target = before  # a key without its value
        else:
            return
        del items[len(items) - size :]
        target.is_open = True


_PUSHED: Final = frozenset(
    op.name
    for op in pickletools.opcodes
    if not op.stack_before and op.stack_after and op.stack_after[0] is not pickletools.anyobject
    if op.arg is not None or op.name == "NONE"
) - {"BYTEARRAY8"}
"""Opcodes that push their own argument, most of all there are."""
_CODES: Final = frozenset(op.code for op in pickletools.opcodes) | {""}
_CUT: Final = "ends early"
_DEEPEST: Final = 5_000
"""Values that wait on one another at the end of what was read: more than can be shown, few enough to put together."""
_TRANSPARENT: Final = frozenset({"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "FRAME"})
"""Opcodes that may stand between a container and the mark before its items."""
_FILLING: Final = frozenset({"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "APPENDS", "SETITEMS", "ADDITEMS"})
_MAPPINGS: Final = frozenset({"collections.OrderedDict", "collections.defaultdict"})
_TAKERS: Final = _MAPPINGS | {"collections.deque", "copyreg._reconstructor", "copyreg.__newobj__"}
"""Functions whose results get their items afterwards, as subclasses of list and dict do."""


def walk(payload: bytes, *, is_cut: bool = False) -> Walk:
    """
    Read a pickle of any protocol, or the beginning of one.

    `is_cut` says that more bytes follow than were given. Never raises for what the bytes hold.
    Cost:    linear in the payload: about 2 µs an opcode.
    """
    machine, stream = _Machine(), io.BytesIO(payload)
    opcodes, end, problem = 0, 0, ""
    ops = pickletools.genops(stream)
    while True:
        try:
            op, arg, _ = next(ops)
        except StopIteration:
            break
        except (ValueError, DeprecationWarning) as error:  # one for odd escapes, if warnings are errors
            known = payload[end : end + 1].decode("latin-1") in _CODES
            is_cut = is_cut and known
            problem = _CUT if known else _malformed(end, clip(str(error), 80))
            if is_cut:
                _push_partial(machine, payload, end)
            break
        opcodes += 1
        try:
            machine.step(op.name, arg)
        except (ValueError, IndexError, KeyError) as error:
            is_cut, problem = False, _malformed(end, f"{op.name}, {_reason(error)}")
            break
        end = stream.tell()
        if op.name not in _TRANSPARENT:
            machine.fills = op.name in _FILLING or (op.name in ("REDUCE", "NEWOBJ") and _takes_items(machine.stack[-1]))
            machine.protocol = max(machine.protocol, op.proto)
    if not problem and machine.stack:
        root = machine.stack[-1]  # as Python does, whatever else is left
        problem = gettext("values are left over") if len(machine.stack) > 1 or machine.outer else ""
    else:
        problem = problem or gettext("no value")
        root = machine.close()
    is_early = problem == _CUT
    told = gettext("ends early") if is_early else problem
    return Walk(root, machine.protocol, opcodes, end, told, is_cut and is_early, tuple(machine.risky))


def _malformed(at: int, why: str) -> str:
    return gettext("malformed at byte %(n)s: %(why)s") % {"n": number(at), "why": why}


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return gettext("nothing was kept under that number")
    return gettext("no value to take") if isinstance(error, IndexError) else str(error)


def _takes_items(value: object) -> bool:
    return isinstance(value, Call) and (value.is_new or dotted(value.target) in _TAKERS)


def _are_pairs(call: Call, items: list[Any]) -> bool:
    """Guess whether these are keys and values, when what would say so was cut off."""
    if call.values is not None or call.pairs is not None:
        return call.pairs is not None
    keys, others = items[::2], items[1::2]
    is_text = all(isinstance(key, str) for key in keys) and not all(isinstance(other, str) for other in others)
    return is_text or dotted(call.target) in _MAPPINGS


def _push_partial(machine: _Machine, payload: bytes, start: int) -> None:
    """Show the beginning of a string that the end of the bytes cut through: a cached page is one long string."""
    size, encoding = _STRINGS.get(payload[start : start + 1], (0, ""))
    data = payload[start + 1 + size :]
    if size and data:
        machine.stack.append(data.decode(encoding, "ignore") + "…" if encoding else data)
