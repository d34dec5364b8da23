"""Rules from and to files: upload, look at what would change, apply; and the download."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.core import signing
from django.core.exceptions import ValidationError
from django.db import router, transaction
from django.http import HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from import_export.results import RowResult

from cacheadmin.models import InvalidationRule

from . import formats, told
from .rule_changes import Change, changes, columns_of, in_words
from .rule_files import FILE_BYTES, FORMATS, MISSING, Sheet, UnreadableFile, format_of, read, sheet
from .rule_resource import KINDS_OF_CHANGE, RuleResource

SALT: Final = "cacheadmin.rules.import"
VALID_SECONDS: Final = 3600
"""For how long a diff may be applied."""


@dataclass(frozen=True, slots=True)
class Line:
    """What happens to one rule of a file."""

    number: int
    """Line of the file, or position in its list."""
    name: str
    what: str
    """`new`, `changed`, `same` or `error`."""
    differences: Sequence[str] = ()
    errors: Sequence[tuple[str, str]] = ()
    """Pairs of column and message."""
    pk: int | None = None
    """Of the rule in the table, if there is one."""


@dataclass(frozen=True, slots=True)
class Diff:
    """What importing a file would do."""

    lines: Sequence[Line]
    elsewhere: int
    """Rules in the table that the file does not name."""
    token: str
    """The file's rows and what they were compared with, signed."""

    @property
    def counts(self) -> Counter[str]:
        """How many lines are new, changed, same or errors."""
        return Counter(line.what for line in self.lines)

    @property
    def changes(self) -> int:
        """How many rules would be written."""
        return self.counts["new"] + self.counts["changed"]

    @property
    def errors(self) -> int:
        """How many lines are wrong."""
        return self.counts["error"]

    @property
    def told(self) -> list[Line]:
        """The lines that are not the same: errors first, then what changes, then what is new."""
        order = ("error", "changed", "new")
        return sorted((line for line in self.lines if line.what in order), key=lambda line: order.index(line.what))

    @property
    def same(self) -> list[Line]:
        """The lines that change nothing."""
        return [line for line in self.lines if line.what == "same"]

    def __str__(self) -> str:
        """Say it in a line: "12 changes: 3 new, 8 changed, 1 error, 41 the same"."""
        total = ngettext("%(n)s change", "%(n)s changes", self.changes) % {"n": formats.number(self.changes)}
        kinds = ("new", "changed", "error", "same")
        return formats.labelled(total, told.parts(**{kind: self.counts[kind] for kind in kinds}))


class UploadForm(forms.Form):
    """A file of rules. Its format is told by its name, or chosen."""

    file = forms.FileField(label=gettext_lazy("File"), max_length=200)
    format = forms.ChoiceField(label=gettext_lazy("Format"), required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = [(each.__name__.lower(), each.__name__) for each in FORMATS]
        self.fields["format"].choices = [("", _("as its name ends")), *names]  # type: ignore[attr-defined]
        self.sheet: Sheet | None = None

    def clean(self) -> dict[str, Any] | None:
        """Read the file. Raises: ValidationError."""
        data, upload = self.cleaned_data, self.cleaned_data.get("file")
        if upload is None:
            return data
        chosen = next((each for each in FORMATS if each.__name__.lower() == data.get("format")), None)
        file_format = chosen or format_of(upload.name)
        if file_format is None:
            text = _("“%(name)s” does not tell its format; choose one.") % {"name": upload.name}
            raise ValidationError({"format": text})
        try:
            if upload.size > FILE_BYTES:
                raise UnreadableFile(_("The file is larger than %(n)s KB.") % {"n": FILE_BYTES // 1024})
            self.sheet = read(upload.read(), file_format)
        except UnreadableFile as error:
            raise ValidationError({"file": str(error)}) from error
        return data


def compare(rows: Sheet, user: Any, *, may_add: bool, may_change: bool) -> Diff:
    """
    Say what importing some rows would do; nothing is written.

    Cost: one query. Raises: UnreadableFile.
    """
    result = RuleResource(may_add=may_add, may_change=may_change).import_data(rows, dry_run=True)
    if result.base_errors:
        raise UnreadableFile(str(result.base_errors[0].error))
    lines = [_line(number, row) for number, row in zip(rows.lines, result.rows, strict=True)]
    stored = {row.name: row for row in InvalidationRule.objects.all()}
    kept = [{k: v for k, v in row.row_values.items() if v is not MISSING} for row in result.rows]
    token = signing.dumps([user.pk, _fingerprint(stored), rows.lines, kept], salt=SALT, compress=True)
    return Diff(lines, len(set(stored) - {line.name for line in lines}), token)


def _line(number: int, row: RowResult) -> Line:
    what = KINDS_OF_CHANGE.get(row.import_type, "error")
    name = str(row.row_values.get("name") or "")[:100]
    errors: list[tuple[str, str]] = []
    if isinstance(row.validation_error, ValidationError):
        for column, messages in row.validation_error.message_dict.items():
            errors += [("" if column == "__all__" else column, str(message)) for message in messages]
    errors += [("", str(error.error)) for error in row.errors]
    if what == "error":
        return Line(number, name, what, errors=errors)
    before = columns_of(row.original) if what != "new" else None
    pk = row.instance.pk if what != "new" else None
    return Line(number, name, what, in_words(changes(before, row.instance)), pk=pk)


def _fingerprint(stored: Mapping[str, InvalidationRule]) -> str:
    """Return a digest of all rules, so that one knows whether they are as they were when the diff was made."""
    text = json.dumps([columns_of(stored[name]) for name in sorted(stored)], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Stale(Exception):
    """The rules changed since the diff was made; it has to be looked at again."""


def opened(token: str, user: Any) -> tuple[str, Sheet]:
    """Return the fingerprint and the rows of a diff. Raises: UnreadableFile if it is forged, too old or another's."""
    try:
        pk, fingerprint, lines, rows = signing.loads(token, salt=SALT, max_age=VALID_SECONDS)
    except (signing.BadSignature, ValueError) as error:
        raise UnreadableFile(_("This diff is too old. Upload the file again.")) from error
    if pk != user.pk:
        raise UnreadableFile(_("This diff is another user’s. Upload the file again."))
    return fingerprint, sheet(zip(lines, rows, strict=True))


@dataclass(frozen=True, slots=True)
class Applied:
    """What an import wrote."""

    new: Sequence[InvalidationRule]
    changed: Sequence[tuple[InvalidationRule, Sequence[Change]]]


def apply(rows: Sheet, fingerprint: str, *, may_add: bool, may_change: bool, without_errors: bool) -> Applied:
    """
    Write what a diff showed, all of it or nothing.

    Raises: Stale if the rules are not as they were; UnreadableFile if rows are wrong and are not to be left out.
    """
    with transaction.atomic(using=router.db_for_write(InvalidationRule)):
        stored = {row.name: row for row in InvalidationRule.objects.select_for_update()}
        if _fingerprint(stored) != fingerprint:
            raise Stale
        result = RuleResource(may_add=may_add, may_change=may_change).import_data(rows, dry_run=False)
        if result.base_errors:
            raise UnreadableFile(str(result.base_errors[0].error))
        wrong = [row for row in result.rows if KINDS_OF_CHANGE.get(row.import_type, "error") == "error"]
        if wrong and not without_errors:
            raise UnreadableFile(_("Some rows are wrong."))
        return Applied(
            new=[row.instance for row in result.rows if row.import_type == RowResult.IMPORT_TYPE_NEW],
            changed=[
                (row.instance, changes(columns_of(row.original), row.instance))
                for row in result.rows
                if row.import_type == RowResult.IMPORT_TYPE_UPDATE
            ],
        )


def download(queryset: Any, format_name: str) -> HttpResponse:
    """Return rules as a file. Raises: KeyError for a format that is none."""
    file_format = {each.__name__.lower(): each for each in FORMATS}[format_name]()
    data = file_format.export_data(RuleResource().export(queryset))
    kind = file_format.get_content_type()
    response = HttpResponse(data, content_type=kind if file_format.is_binary() else f"{kind}; charset=utf-8")
    name = f"cache-rules-{timezone.localdate():%Y-%m-%d}.{file_format.get_extension()}"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
