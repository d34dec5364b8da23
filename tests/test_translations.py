"""What some languages want of the pages: a space before the percent sign, no-break spaces in every other sentence."""

import pytest
from console import client_of, every_page, page, scope_of
from django.utils import translation

from cacheadmin.admin import formats, series
from cacheadmin.overview import Series
from cacheadmin.preview.values import escaped, visible
from cacheadmin.targets import ALL, Target
from shop.models import User


def test_percentages_have_the_space_that_the_language_wants() -> None:
    with translation.override("fr"):
        assert formats.percent(0.9346, 1) == "93,5\u00a0%"
        assert formats.percent(0.9999) == ">99\u00a0%"
    assert formats.percent(0.9346, 1) == "93.5%"


def test_the_memory_chart_has_the_unit_of_the_language() -> None:
    found = Series(60, used_bytes=[1 << 20], limit_bytes=1 << 28)
    assert series.memory(found).title == "Memory, MB of 256"
    with translation.override("fr"):
        assert series.memory(found).title == "Mémoire, Mio sur 256"


def test_a_sentence_keeps_its_no_break_spaces_and_a_name_does_not() -> None:
    assert visible("Invalider\u00a0? 1\u202f000\u202e") == "Invalider\u00a0? 1\u202f000\\u202e"
    assert escaped("Gold\u00a0Sons") == "Gold\\xa0Sons"


@pytest.mark.django_db
def test_french_pages_show_no_space_as_an_escape() -> None:
    client = client_of(User.objects.create_superuser("amira"))
    pages = every_page()
    pages["invalidate all"] = page("invalidate", on=scope_of(Target("tenant", "", ALL)))
    with translation.override("fr"):
        bodies = {name: client.get(url, follow=True).content.decode() for name, url in pages.items()}
    assert [name for name, body in bodies.items() if "\\xa0" in body] == []
    assert "Invalider tout ce qui est en cache pour tous les locataires\u00a0?" in bodies["invalidate all"]
