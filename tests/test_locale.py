"""The translations: whole, in step with the code and with what is shipped, and to be seen on the pages."""

import ast
import datetime as dt
import gettext
import os
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
from console import every_page, page
from django.utils import translation

import cacheadmin
from cacheadmin.admin import formats
from cacheadmin.models import Activity
from cacheadmin.rules import Rule, validate

PACKAGE = Path(cacheadmin.__file__).parent
LANGUAGES = ("de", "fr")
PLACEHOLDER = re.compile(r"%%|%\(\w+\)[a-z]|%[a-z]|\{\w*\}|<[^>]+>|\n")
LONG = 20
"""Characters from which a text is a sentence, no word that two languages may share."""

HEADINGS = {
    "de": {
        "console_changelist": "Übersicht",
        "tenant_list": "Mandanten",
        "function_list": "Gecachte Funktionen",
        "rule changelist": "Invalidierungsregeln",
        "activity_list": "Aktivität",
        "health": "Zustand",
    },
    "fr": {
        "console_changelist": "Vue d’ensemble",
        "tenant_list": "Locataires",
        "function_list": "Fonctions en cache",
        "rule changelist": "Règles d’invalidation",
        "activity_list": "Activité",
        "health": "Santé",
    },
}
"""The headings of the main pages."""

NEIGHBOURS = ("django", "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "import_export")
"""Packages whose texts lie in one pot with ours: of two translations of a text, the site's order of apps chooses."""


# --- the catalogues ---------------------------------------------------------------------------------------------------


@dataclass
class Entry:
    """One text of a catalogue."""

    context: str | None = None
    text: str = ""
    plural: str | None = None
    forms: dict[int, str] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)

    @property
    def key(self):
        return self.context, self.text, self.plural


def entries_of(path):
    """Return header and texts of a .po file, obsolete ones left out."""
    found = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        entry, add = Entry(), None
        for line in block.splitlines():
            word, _space, rest = line.partition(" ")
            if line.startswith("#,"):
                entry.flags |= {flag.strip() for flag in line[2:].split(",")}
            elif word in ("msgctxt", "msgid", "msgid_plural"):
                add = {"msgctxt": "context", "msgid": "text", "msgid_plural": "plural"}[word]
                setattr(entry, add, ast.literal_eval(rest))
            elif word.startswith("msgstr"):
                add = int(word[7:-1] or 0) if "[" in word else 0
                entry.forms[add] = ast.literal_eval(rest)
            elif line.startswith('"'):
                more = ast.literal_eval(line)
                if isinstance(add, int):
                    entry.forms[add] += more
                else:
                    setattr(entry, add, getattr(entry, add) + more)
        if entry.forms:
            found.append(entry)
    return found[0], found[1:]


def catalogue(language, root=PACKAGE):
    """Return header and texts of the catalogue of a language."""
    return entries_of(root / "locale" / language / "LC_MESSAGES" / "django.po")


def held(text):
    """Return what stands in a text for the program, not for people: placeholders, tags, the ends of lines."""
    return sorted(PLACEHOLDER.findall(text))


def edges(text):
    """Return the spaces that a text begins and ends with."""
    return text[: len(text) - len(text.lstrip(" "))], text[len(text.rstrip(" ")) :]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated_and_none_by_guess(language):
    header, entries = catalogue(language)
    assert len(entries) > 900
    assert f"Language: {language}\n" in header.forms[0]
    count = int(re.search(r"nplurals=(\d+)", header.forms[0])[1])
    for entry in entries:
        assert "fuzzy" not in entry.flags, entry.text
        assert len(entry.forms) == (1 if entry.plural is None else count), entry.text
        assert all(entry.forms.values()), entry.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_keeps_what_is_not_for_people(language):
    for entry in catalogue(language)[1]:
        allowed = [held(entry.text), *([held(entry.plural)] if entry.plural is not None else [])]
        for form in entry.forms.values():
            assert held(form) in allowed, (entry.text, form)
            assert edges(form) == edges(entry.text), (entry.text, form)
            assert ("…" in form) == ("…" in entry.text), (entry.text, form)
        assert held(entry.forms[max(entry.forms)]) == allowed[-1], entry.text  # the many must say how many


@pytest.mark.parametrize("language", [*LANGUAGES, "en"])
def test_headers_name_neither_people_to_be_nor_the_hour(language):
    text = (PACKAGE / "locale" / language / "LC_MESSAGES" / "django.po").read_text(encoding="utf-8")
    head = text.partition("\n\n")[0]
    for unwanted in ("SOME DESCRIPTIVE", "FULL NAME", "PACKAGE VERSION", "POT-Creation-Date", "fuzzy"):
        assert unwanted not in head
    assert "#~ " not in text


@pytest.mark.parametrize("language", [*LANGUAGES, "en"])
def test_what_is_shipped_is_compiled_from_what_is_written(language):
    folder = PACKAGE / "locale" / language / "LC_MESSAGES"
    translated = [entry for entry in catalogue(language)[1] if all(entry.forms.values())]
    data = (folder / "django.mo").read_bytes()
    with (folder / "django.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    assert struct.unpack("<7I", data[:28])[2] == len(translated) + 1  # the header is one
    for entry in translated:
        if entry.plural is not None:
            for n in (0, 1, 2, 1000):
                form = compiled.ngettext(entry.text, entry.plural, n)
                assert form in entry.forms.values(), entry.text
            assert compiled.ngettext(entry.text, entry.plural, 1000) == entry.forms[max(entry.forms)]
        elif entry.context is not None:
            assert compiled.pgettext(entry.context, entry.text) == entry.forms[0]
        else:
            assert compiled.gettext(entry.text) == entry.forms[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_neighbour_translates_a_text_of_ours_otherwise(language):
    ours = {entry.text: entry for entry in catalogue(language)[1] if entry.context is None and entry.plural is None}
    met = set()
    for name in NEIGHBOURS:
        root = Path(find_spec(name).origin).parent / ("conf" if name == "django" else "")
        for entry in entries_of(root / "locale" / language / "LC_MESSAGES" / "django.po")[1]:
            theirs = entry.forms[0]
            if entry.context is None and entry.text in ours and theirs and "fuzzy" not in entry.flags:
                met.add(entry.text)
                assert ours[entry.text].forms[0] == theirs, f"{entry.text!r}, as {name} has it; or give it a context"
    assert {"Save", "Delete", "Home"} <= met


@pytest.fixture
def renewed(require, tmp_path):
    """`renewed()` does what `make messages` does, to a copy of the package. Returns: the copy, and what was printed."""
    require("gettext")
    copy = tmp_path / "cacheadmin"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "static", "*.mo"))  # links followed
    bare = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}

    def run():
        command = [sys.executable, Path(__file__).with_name("catalogues.py"), "--package", copy]
        return copy, subprocess.run(command, env=bare, capture_output=True, text=True)

    return run


def test_the_catalogues_hold_what_the_code_says_now(renewed):
    copy, made = renewed()
    assert made.returncode == 0, made.stderr
    for language in (*LANGUAGES, "en"):
        written = {entry.key for entry in catalogue(language)[1]}
        now = {entry.key for entry in catalogue(language, copy)[1]}
        assert now == written, f"run `make messages`, then translate: {sorted(map(str, now ^ written))[:5]}"


def test_renewing_the_catalogues_twice_changes_nothing_and_guesses_nothing(renewed, tmp_path):
    files = [tmp_path / "cacheadmin" / "locale" / name / "LC_MESSAGES" / "django.po" for name in (*LANGUAGES, "en")]
    text = files[0].read_text(encoding="utf-8")
    head, rest = text.split("\n\n", 1)
    stamped = head + '\n"POT-Creation-Date: 2026-01-01 "\n"00:00+0000\\n"\n"Report-Msgid-Bugs-To: somebody\\n"'
    known, alike = 'msgid "Save and continue editing"\n', 'msgid "Save and continue editin"\n'
    assert known in rest
    files[0].write_text("\n\n".join([stamped, rest.replace(known, alike)]), encoding="utf-8")
    _copy, made = renewed()
    assert (made.returncode, made.stderr.count("not translated")) == (1, 1), made.stderr
    assert 'not translated: "Save and continue editing"' in made.stderr
    first = [file.read_bytes() for file in files]
    assert first[0].decode().split("\n\n", 1)[0] == head
    assert b"fuzzy" not in first[0]
    renewed()
    assert [file.read_bytes() for file in files] == first


# --- the pages ------------------------------------------------------------------------------------------------------


class Visible(HTMLParser):
    """Collects what people see, or are read: text, and the attributes that are shown."""

    SHOWN = {
        "title",
        "aria-label",
        "placeholder",
        "alt",
        "data-text",
        "data-cacheadmin-late",
        "data-add",
        "data-remove",
    }

    def __init__(self):
        super().__init__()
        self.texts, self.hidden, self.headings, self.inside = [], 0, [], ""

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("script", "style")
        self.inside = tag if tag == "h1" else self.inside
        self.texts += [value for name, value in attrs if name in self.SHOWN and value]

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style")
        self.inside = "" if tag == "h1" else self.inside

    def handle_data(self, data):
        if not self.hidden and data.strip():
            self.texts.append(data)
            if self.inside == "h1":
                self.headings.append(data.strip())


def seen(html):
    """Return what is visible on a page, and its headings."""
    parser = Visible()
    parser.feed(html)
    return " ".join(" ".join(parser.texts).split()), parser.headings


def english(language):
    """Return the long pieces between placeholders that a translation into a language does not share with English."""
    found = set()
    for entry in catalogue(language)[1]:
        said = " ".join(" ".join(entry.forms.values()).split())
        for text in filter(None, (entry.text, entry.plural)):
            pieces = (" ".join(piece.split()) for piece in PLACEHOLDER.split(text))
            found |= {piece for piece in pieces if len(piece) > LONG and piece not in said}
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_speaks_the_language_and_no_english_sentence(admin, language):
    foreign = english(language)
    assert len(foreign) > 400
    with translation.override(language):
        urls = every_page()
        for name, url in urls.items():
            response = admin.get(url, follow=True)
            assert response.status_code == (404 if name in ("gone", "not found") else 200), name
            text, headings = seen(response.content.decode())
            assert not [piece for piece in foreign if piece in text], name
            if name in HEADINGS[language]:
                assert HEADINGS[language][name] in headings, name


@pytest.mark.parametrize(("language", "count", "day"), [("de", "38.412", "01.03.2025"), ("fr", "38 412", "01/03/2025")])
def test_numbers_and_dates_are_written_as_the_language_does(admin, language, count, day):
    line = Activity.objects.create(kind="invalidate", source="user", who="amira", what="it", tenants=[], entries=38412)
    Activity.objects.filter(pk=line.pk).update(at=dt.datetime(2025, 3, 1, 12, tzinfo=dt.UTC))
    with translation.override(language):
        text, _headings = seen(admin.get(page("activity_detail", line.pk)).content.decode())
    assert count in text
    assert day in text


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_a_strip_shows_a_number_and_its_unit_in_any_language(language):
    with translation.override(language):
        below, ago = formats.duration(0.000_01), formats.ago(0.0, 12 * 60)
        for text in (below, ago, formats.duration(252), formats.duration(48)):
            value, unit = formats.parted(text)
            assert value[-1].isdecimal()
            assert unit
            assert f"{value} {unit}" == text
        assert formats.parted(formats.UNKNOWN) == (formats.UNKNOWN, "")
        assert formats.parted(formats.duration(0)) == ("0", "")


@pytest.mark.parametrize(("language", "said"), [("de", "Das Feld"), ("fr", "Le champ")])
def test_what_is_wrong_with_a_rule_is_said_in_the_language(language, said):
    rule = Rule("stock", model="shop.InventoryItem", targets=["group:stock"], fields=["quantiti"])
    with translation.override(language):
        [problem] = validate(rule)
    assert problem.message.startswith(said)
    assert "shop.InventoryItem.quantiti" in problem.message


def test_the_filters_of_activity_show_words_and_send_values(admin):
    with translation.override("de"):
        body = admin.get(page("activity_list", source="rule")).content.decode()
    assert '<option value="rule" selected>Regel</option>' in body
    assert '<option value="waiting">wartend</option>' in body
