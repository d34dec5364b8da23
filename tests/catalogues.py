"""
`make messages`: bring the translations up to date with the code and compile them. Needs gettext.

    python tests/catalogues.py [-l LANGUAGE ...] [--package DIRECTORY]

Nothing is guessed: a text that is new or that changed stands there untranslated. Headers keep neither the hour nor what
a version of gettext adds, so that a second run changes nothing. Exit code 1 when a shipped translation lacks texts.
"""

import argparse
import os
import re
import sys
from pathlib import Path

from django.conf import settings
from django.core.management.commands import compilemessages, makemessages

PACKAGE = Path(__file__).resolve().parent.parent / "cacheadmin"
SOURCE = "en"
"""The language of the code: its catalogue has no translations, only forms of plurals."""

UNSTEADY = ("POT-Creation-Date", "Report-Msgid-Bugs-To", "PO-Revision-Date", "X-Generator")
"""Fields of a header that say when or by which program a file was made."""


class Make(makemessages.Command):
    """Django's command, without guesses from texts that are alike."""

    msgmerge_options = [*makemessages.Command.msgmerge_options, "--no-fuzzy-matching"]


def main(argv=None):
    """Update all catalogues, or those of some languages. Returns: the exit code."""
    parser = argparse.ArgumentParser(prog="make messages", description=__doc__.strip().splitlines()[0])
    parser.add_argument("-l", "--locale", action="append", default=[], help="a language, also a new one (default: all)")
    parser.add_argument("--package", type=Path, default=PACKAGE, help="directory of the package")
    options = parser.parse_args(argv)
    settings.configure()
    os.chdir(options.package)
    languages = options.locale or sorted(path.name for path in Path("locale").iterdir() if path.is_dir())
    chosen = [argument for language in languages for argument in ("-l", language)]
    how = ["--symlinks", "--add-location", "file", "--no-wrap", "--no-obsolete"]
    Make().run_from_argv(["make", "messages", *chosen, *how])
    lacking = 0
    for language in languages:
        path = Path("locale", language, "LC_MESSAGES", "django.po")
        path.write_text(steady(path.read_text(encoding="utf-8")), encoding="utf-8")
        missing = [] if language == SOURCE else untranslated(path.read_text(encoding="utf-8"))
        lacking += len(missing)
        for text in missing:
            print(f"{path}: not translated: {text}", file=sys.stderr)
    compilemessages.Command().run_from_argv(["make", "messages", *chosen])
    return 1 if lacking else 0


def steady(text):
    """Return a catalogue whose header has a line a field, and none that differs from run to run."""
    head, _blank, rest = text.partition("\n\n")
    comments, _start, fields = head.partition('msgid ""\nmsgstr ')
    words = "".join(re.findall(r'"(.*)"', fields)).split("\\n")
    kept = [f'"{field}\\n"' for field in words if field and field.partition(":")[0] not in UNSTEADY]
    return "\n".join([f'{comments}msgid ""', 'msgstr ""', *kept, "", rest])


def untranslated(text):
    """Return the texts of a catalogue that have no translation, or only a guess."""
    found = []
    for block in text.split("\n\n")[1:]:
        forms = re.findall(r'^msgstr(?:\[\d\])? (.*(?:\n".*)*)', block, re.MULTILINE)
        if "#, fuzzy" in block or any(not re.sub(r'["\n]', "", form) for form in forms):
            found.append(re.search(r'^msgid (.*(?:\n".*)*)', block, re.MULTILINE)[1])
    return found


if __name__ == "__main__":
    sys.exit(main())
