"""Rules as files: JSON, YAML, CSV and XLSX, read within bounds and written so that no spreadsheet runs a cell.

A file is untrusted. It is bounded before it is parsed, YAML is read without tags and aliases, a workbook without
entities and formulas. What the cells mean is `rule_resource`'s.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import openpyxl  # type: ignore[import-untyped]
import tablib
import yaml
from django.utils.translation import gettext as _
from import_export.formats import base_formats

from cacheadmin.exceptions import InvalidRule
from cacheadmin.rules import RuleTarget

COLUMNS: Final = ("name", "model", "events", "fields", "tenant", "targets", "warm", "enabled", "note")
"""The columns of a file, in the order in which they are written. A file may leave out all but `name`."""

FILE_BYTES: Final = 1024 * 1024
"""Largest upload."""

ROWS: Final = 1000
"""Most rules of one file."""

CELL_CHARACTERS: Final = 20_000

UNPACKED_BYTES: Final = 20 * 1024 * 1024
"""Largest size of a workbook's parts together, unpacked."""

PARTS: Final = 100
"""Most parts of a workbook."""

RUNS_IN_A_SPREADSHEET: Final = re.compile(r"'*[=+\-@\t\r]")
"""What a cell must not begin with. Apostrophes before it count, so that taking one away undoes putting one there."""


class UnreadableFile(ValueError):
    """A file that is too large, broken, or holds something that a file of rules does not."""


def quiet(cell: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would run as a formula (OWASP, CSV Injection)."""
    return f"'{cell}" if isinstance(cell, str) and RUNS_IN_A_SPREADSHEET.match(cell) else cell


def unquiet(cell: Any) -> Any:
    """Undo `quiet`."""
    is_quiet = isinstance(cell, str) and cell.startswith("'") and RUNS_IN_A_SPREADSHEET.match(cell[1:])
    return cell[1:] if is_quiet else cell


class Sheet(tablib.Dataset):
    """The rules of a file, and where each stands in it."""

    lines: list[int]


def sheet(rows: Iterable[tuple[int, Any]]) -> Sheet:
    """
    Build a dataset from numbered rows that need not have the same columns; a missing cell is MISSING, not empty.

    Raises: UnreadableFile.
    """
    lines: list[int] = []
    kept: list[Mapping[str, Any]] = []
    for line, row in rows:
        if not isinstance(row, Mapping) or not all(isinstance(name, str) for name in row):
            raise UnreadableFile(_("Item %(n)s is no object with named fields.") % {"n": line})
        lines.append(line)
        kept.append(row)
        if len(kept) > ROWS:
            raise UnreadableFile(_("The file holds more than %(n)s rules.") % {"n": ROWS})
    if not kept:
        raise UnreadableFile(_("The file holds no rule."))
    headers = list(dict.fromkeys(name for row in kept for name in row))
    unknown = [name for name in headers if name not in COLUMNS]
    if unknown:
        names = {"name": unknown[0][:100], "known": ", ".join(COLUMNS)}
        raise UnreadableFile(_("Unknown column “%(name)s”. Known are %(known)s.") % names)
    if "name" not in headers:
        raise UnreadableFile(_("There is no column “name”, which tells the rules apart."))
    found = Sheet(headers=headers)
    found.lines = lines
    for row in kept:
        found.append([_bounded(row.get(name, MISSING)) for name in headers])
    return found


class Missing:
    """The one value `MISSING`: the file says nothing about this cell."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()


def _bounded(cell: Any) -> Any:
    if cell is MISSING:
        return cell
    text = json.dumps(cell, default=str)
    if len(text) > CELL_CHARACTERS:
        raise UnreadableFile(_("A cell holds more than %(n)s characters.") % {"n": CELL_CHARACTERS})
    if "\\u0000" in text:
        raise UnreadableFile(_("A cell holds a character that is none (NUL)."))
    return json.loads(text)  # dates and the like become texts


def _text(data: bytes | str) -> str:
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableFile(_("The file is not UTF-8 text: %(error)s") % {"error": error.reason}) from error


class JSON(base_formats.JSON):
    """A list of objects."""

    def create_dataset(self, in_stream: bytes | str, **_options: Any) -> Sheet:
        """Read a file. Raises: UnreadableFile."""
        try:
            rows = json.loads(_text(in_stream))
        except (ValueError, RecursionError) as error:
            raise UnreadableFile(_("This is no JSON: %(error)s") % {"error": error}) from error
        return sheet(_listed(rows))

    def export_data(self, dataset: tablib.Dataset, **_options: Any) -> str:
        """Write a file."""
        return json.dumps(_plain(dataset), ensure_ascii=False, indent=2) + "\n"


class YAML(base_formats.YAML):
    """A list of mappings."""

    def create_dataset(self, in_stream: bytes | str, **_options: Any) -> Sheet:
        """Read a file. Raises: UnreadableFile."""
        try:
            rows = yaml.load(_text(in_stream), Loader=PlainLoader)  # noqa: S506 - a SafeLoader that reads even less
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UnreadableFile(_("This is no plain YAML: %(error)s") % {"error": str(error)[:300]}) from error
        return sheet(_listed(rows))

    def export_data(self, dataset: tablib.Dataset, **_options: Any) -> str:
        """Write a file."""
        return yaml.safe_dump(_plain(dataset), allow_unicode=True, sort_keys=False, width=120)


class PlainLoader(yaml.SafeLoader):
    """Reads texts, numbers, booleans, lists and mappings. No aliases: a few lines of them can mean gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse an alias. Raises: ComposerError."""
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)


class CSV(base_formats.CSV):
    """One rule a line, a header first; separated by commas, semicolons or tabs."""

    def create_dataset(self, in_stream: bytes | str, **_options: Any) -> Sheet:
        """Read a file. Raises: UnreadableFile."""
        text = _text(in_stream)
        if "\0" in text:
            raise UnreadableFile(_("The file is no text."))
        head = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=head.count)
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            return sheet(_named(_numbered(reader)))
        except csv.Error as error:
            raise UnreadableFile(_("This is no CSV: %(error)s") % {"error": error}) from error

    def export_data(self, dataset: tablib.Dataset, **_options: Any) -> str:
        """Write a file; cells that a spreadsheet would run get an apostrophe."""
        out = io.StringIO(newline="")
        writer = csv.writer(out)
        writer.writerow(dataset.headers)
        writer.writerows([quiet(flat(cell)) for cell in row] for row in dataset)
        return out.getvalue()


class XLSX(base_formats.XLSX):
    """The first sheet of a workbook, a header first."""

    def create_dataset(self, in_stream: bytes) -> Sheet:
        """Read a file. Raises: UnreadableFile."""
        try:
            _check_parts(in_stream)
            book = openpyxl.load_workbook(io.BytesIO(in_stream), read_only=True, data_only=True, keep_links=False)
            first = book.worksheets[0]
            first.reset_dimensions()
            rows = first.iter_rows(max_row=ROWS + 2, max_col=len(COLUMNS) * 2, values_only=True)
            return sheet(_named(enumerate((["" if cell is None else cell for cell in row] for row in rows), 1)))
        except UnreadableFile:
            raise
        except Exception as error:  # openpyxl raises whatever a broken part makes it stumble over
            raise UnreadableFile(_("This is no workbook that can be read: %(error)s") % {"error": error}) from error

    def export_data(self, dataset: tablib.Dataset, **_options: Any) -> bytes:
        """Write a file; cells are texts, and those that a spreadsheet would run get an apostrophe."""
        book = openpyxl.Workbook(write_only=True)
        rules = book.create_sheet("Rules")
        rules.append(list(dataset.headers))
        for row in dataset:
            rules.append([_printable(quiet(flat(cell))) for cell in row])
        out = io.BytesIO()
        book.save(out)
        return out.getvalue()


FORMATS: Final = (JSON, YAML, CSV, XLSX)
"""What can be imported and exported; the position of a class is its name in forms."""

_EXTENSIONS: Final = {"json": JSON, "yaml": YAML, "yml": YAML, "csv": CSV, "txt": CSV, "tsv": CSV, "xlsx": XLSX}


def format_of(file_name: str) -> type[base_formats.TablibFormat] | None:
    """Return the format that a file's name ends in."""
    return _EXTENSIONS.get(file_name.rsplit(".", 1)[-1].lower())


def read(data: bytes, file_format: type[base_formats.TablibFormat]) -> Sheet:
    """Read a file of rules. Raises: UnreadableFile."""
    if len(data) > FILE_BYTES:
        raise UnreadableFile(_("The file is larger than %(n)s KB.") % {"n": FILE_BYTES // 1024})
    return file_format().create_dataset(data)


def flat(cell: Any) -> str:
    """Return a cell as one text: names with commas between, targets a line each, `yes` and `no`."""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, list):
        if all(isinstance(item, str) for item in cell):
            return ", ".join(cell)
        return "\n".join(map(target_text, cell))
    return "" if cell is None else str(cell)


def target_text(target: Any) -> str:
    """Return a target as one line that `target_of` reads: `tag:sale:{pk} of all tenants in query`, at worst JSON."""
    try:
        parsed = RuleTarget.parse(target)
        if "\n" not in str(parsed) and target_of(str(parsed)) == parsed:
            return str(parsed)
    except InvalidRule:
        pass  # what is damaged is written as it stands
    return json.dumps(target, default=str)


_WHOSE: Final = {"all tenants": "all", "shared data": "shared"}
_LINE: Final = re.compile(r"(?P<what>.*?)(?: of (?P<whose>all tenants|shared data))?(?: in (?P<alias>\S+))?", re.DOTALL)


def target_of(text: str) -> RuleTarget:
    """Undo `target_text`. Raises: InvalidRule."""
    text = text.strip()
    if text.startswith("{"):
        try:
            return RuleTarget.parse(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise InvalidRule(f"{text[:100]!r} is no target: {error}") from error
    match = _LINE.fullmatch(text)
    if match is None or not match["what"]:
        raise InvalidRule(f"{text[:100]!r} is no target.")
    whose = _WHOSE.get(match["whose"] or "", "same")
    return replace(RuleTarget.parse(match["what"]), tenant=whose, alias=match["alias"])


def _listed(rows: Any) -> Iterable[tuple[int, Any]]:
    if not isinstance(rows, list):
        raise UnreadableFile(_("The file must hold a list of rules."))
    return enumerate(rows, 1)


def _numbered(reader: Any) -> Iterable[tuple[int, list[str]]]:
    """Yield the lines of a CSV file with the number of the line on which each begins."""
    begins = 1
    for cells in reader:
        yield begins, cells
        begins = reader.line_num + 1


def _named(lines: Iterable[tuple[int, Iterable[Any]]]) -> Iterable[tuple[int, dict[str, Any]]]:
    """Yield the lines below the header as dicts; empty lines are left out."""
    headers: list[str] | None = None
    for number, line in lines:
        cells = [unquiet(cell) for cell in line]
        if headers is None:
            headers = [str(cell).strip().lower() for cell in cells]
            while headers and not headers[-1]:
                headers.pop()
            if len(set(headers)) < len(headers):
                raise UnreadableFile(_("A column stands there twice."))
        elif any(cell != "" for cell in cells):
            if any(cell != "" for cell in cells[len(headers) :]):
                raise UnreadableFile(_("Line %(n)s has more cells than the header.") % {"n": number})
            yield number, dict(zip(headers, cells, strict=False))


def _plain(dataset: tablib.Dataset) -> list[dict[str, Any]]:
    return [dict(zip(dataset.headers, row, strict=True)) for row in dataset]


def _printable(cell: Any) -> Any:
    """Take out control characters, which a workbook cannot hold."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "\ufffd", cell) if isinstance(cell, str) else cell


def _check_parts(data: bytes) -> None:
    """Refuse a workbook that unpacks to too much, or whose parts define entities."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        if len(parts) > PARTS or sum(part.file_size for part in parts) > UNPACKED_BYTES:
            raise UnreadableFile(
                _("The workbook unpacks to more than %(n)s MB.") % {"n": UNPACKED_BYTES // (1024 * 1024)}
            )
        for part in parts:
            # A part cannot be longer than it says: zipfile reads no further.
            if part.filename.lower().endswith((".xml", ".rels")) and _defines_entities(archive.read(part)):
                raise UnreadableFile(_("The workbook defines XML entities."))


def _defines_entities(xml: bytes) -> bool:
    codes = ("ascii", "utf-16-le", "utf-16-be")
    return any(word.encode(code) in xml for word in ("<!DOCTYPE", "<!ENTITY") for code in codes)
