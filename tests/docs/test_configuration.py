"""docs/configuration.md has every key with its default, and no page names a key that does not exist."""

import re

import pytest
from pages import PAGES, ROOT

from msg_ms.config import KEYS, flat_items, load_config

PAGE = ROOT / "docs" / "configuration.md"
ROW = re.compile(r"^\| ((?:`[A-Z_.]+`(?: \(new\))?(?:, )?)+) \| (?:`(.*?)` )?\|", re.MULTILINE)
SPAN = re.compile(r"`((?:DATA|MODEL|TRAIN|AUG|TEST|AMP|DETECTION)\.[A-Z_.]+)(\*?)")
DEFAULTS = dict(flat_items(load_config(None)))


def documented(text):
    """Return the documented keys with the texts of their defaults, in the order of the page."""
    return [(key, row[2] or "") for row in ROW.finditer(text) for key in re.findall(r"`(.+?)`", row[1])]


def unknown(text):
    """Return the names in code spans that are no key, no section and, with ``*``, not the beginning of a key."""
    return [
        name
        for name, star in SPAN.findall(text)
        if name not in KEYS and not any(key.startswith(name if star else f"{name}.") for key in KEYS)
    ]


def test_every_key_has_one_row():
    assert sorted(key for key, _ in documented(PAGE.read_text(encoding="utf-8"))) == sorted(KEYS)


@pytest.mark.parametrize("key, text", documented(PAGE.read_text(encoding="utf-8")))
def test_the_default_is_that_of_the_schema(key, text):
    assert dict(flat_items(load_config(None, ["TASK", "detection", key, text])))[key] == DEFAULTS[key]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_keys_on_a_page_exist(page):
    assert not unknown(page.read_text(encoding="utf-8"))


def test_a_missing_row_a_wrong_default_and_a_wrong_key_are_found():
    text = "| `SEED` | `1` | of all |\n`TRAIN.EMA`, `AUG.MIX*`, `AUG.NO*`"
    assert documented(text) == [("SEED", "1")] and DEFAULTS["SEED"] != 1
    assert unknown(text) == ["TRAIN.EMA", "AUG.NO"]
