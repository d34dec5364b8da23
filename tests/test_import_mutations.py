"""Files of rules with anything wrong in them: they are refused with a sentence, or their rows are, and nothing else."""

import io
import random
import re
import zipfile

import pytest
import time_machine
from django.core.exceptions import ValidationError

from cacheadmin.admin import rule_files, rule_import
from cacheadmin.admin.rule_files import UnreadableFile, read
from cacheadmin.admin.rule_resource import RuleResource
from cacheadmin.models import InvalidationRule

pytestmark = pytest.mark.django_db

ODD = (
    *(
        b"\x00",
        b"\xff",
        b"\xc3",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n\n",
        b"\t",
        b"'",
        b'"',
        b",",
        b";",
        b":",
        b"-",
        b"{",
        b"]",
    ),
    *(
        b"null",
        b"true",
        b"1e999",
        b"NaN",
        b"-1",
        b"2026-11-22",
        b"2026-99-99",
        b"!!set {a}",
        b"&a [*a]",
        b"<<: {name: x}",
    ),
    *(b"? [name]\n: x\n", b"\\ud800", b"\\u0000", b"{}", b"[[]]", b'{"kind": {}}', b"<c/>", b"&#0;", b't="s"', b"=1+1"),
)
"""What is put in, besides bytes by chance."""


def worsen(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with one to four things done to them: a byte changed, some cut, doubled, moved, or put in."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at, end = sorted((chance.randint(0, len(found)), chance.randint(0, len(found))))
        end = min(end, at + chance.choice((1, 1, 3, 20, 200)))
        deed = chance.randrange(6)
        if deed == 0 and found:
            found[min(at, len(found) - 1)] = chance.randrange(256)
        elif deed == 1:
            del found[at:end]
        elif deed == 2:
            found[at:at] = found[at:end]
        elif deed == 3:
            part = found[at:end]
            del found[at:end]
            found[(there := chance.randint(0, len(found))) : there] = part
        else:
            found[at : end if deed == 4 else at] = chance.choice(ODD)
    return bytes(found)


def respell(xml: bytes, chance: random.Random) -> bytes:
    """Return XML with another character in one of its texts."""
    texts = list(re.finditer(rb"(?<=>)[^<>]+(?=<)", xml))
    at = chance.randrange(*chance.choice(texts).span())
    return xml[:at] + bytes([chance.choice(b"abcxyz019 :,'=\n")]) + xml[at + 1 :]


def worsen_part(data: bytes, chance: random.Random) -> bytes:
    """Return a workbook, itself sound, of which one part is worse, or only a text in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new:
        worse = chance.choice([part for part in old.namelist() if part.startswith("xl/") or chance.random() < 0.2])
        if chance.random() < 0.5:
            worse, change = "xl/worksheets/sheet1.xml", respell
        else:
            change = worsen
        for part in old.namelist():
            new.writestr(part, change(old.read(part), chance) if part == worse else old.read(part))
    return out.getvalue()


@pytest.fixture
def results(monkeypatch):
    """What django-import-export found in each file that was compared."""
    found = []
    original = RuleResource.import_data

    def note(self, *args, **options):
        found.append(original(self, *args, **options))
        return found[-1]

    monkeypatch.setattr(RuleResource, "import_data", note)
    return found


@pytest.mark.parametrize("file_format", ["json", "yaml", "csv", "xlsx"])
def test_a_file_that_is_damaged_by_chance_is_refused_or_its_rows_are(admin_user, results, file_format):
    for name, columns in {
        "plain": {"targets": ["group:inventory_list"]},
        "rich": {
            "events": ["update", "m2m"],
            "fields": ["price", "quantity"],
            "tenant": "branch__tenant_id",
            "targets": [{"kind": "tag", "name": "branch:{branch_id}", "alias": "query", "tenant": "all"}],
            "warm": True,
            "enabled": False,
            "note": "=1+1 é",
        },
    }.items():
        InvalidationRule.objects.create(name=name, model="shop.InventoryItem", **columns)
    with time_machine.travel("2026-11-22T12:00:00Z", tick=False):  # a workbook says when it was made
        sound = rule_import.download(InvalidationRule.objects.all(), file_format).content
    reader = rule_files.format_of(f"x.{file_format}")
    chance = random.Random(f"worse {file_format}")
    refused, turns = 0, 500 if file_format == "xlsx" else 1000
    for turn in range(turns):
        change = worsen_part if file_format == "xlsx" and turn % 4 else worsen
        data = change(sound, chance)
        try:
            diff = rule_import.compare(read(data, reader), admin_user, may_add=True, may_change=True)
        except UnreadableFile:
            refused += 1
            continue
        except Exception as error:
            raise AssertionError(f"{error!r} for {data!r}") from error
        for line in diff.lines:
            assert line.what != "error" or line.errors, data
        for row in results[-1].rows:
            assert all(isinstance(e.error, ValidationError | ValueError) for e in row.errors), (row.errors, data)
    kinds = {line for result in results for line in (row.import_type for row in result.rows)}
    assert 0.1 < refused / turns < 0.97  # some are read
    assert {"invalid", "update", "skip"} <= kinds
