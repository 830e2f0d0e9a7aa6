"""Every word of the interface has its translation, and no translation lost its word."""

import re

import pytest

from page.theme import ASSETS
from page.words import translations

ROOT = ASSETS.parent.parent


def words_of_the_page() -> set[str]:
    found = set()
    for template in ASSETS.glob("*.html"):
        text = template.read_text("utf-8")
        found |= {m.strip() for m in re.findall(r"data-t>([^<]+)<", text)}
        found |= set(re.findall(r'aria-label="([^"]+)" data-t-label', text))
    layout = (ROOT / "page" / "layout.py").read_text("utf-8")
    found |= {eval(m) for m in re.findall(r'\bt\(\s*("[^"]*")\s*\)', layout)}
    found |= {eval(re.search(r"PRIVACY = (\(.*?\))\n", layout, re.DOTALL).group(1))}
    handlers = (ROOT / "page" / "handlers.py").read_text("utf-8")
    return found | set(re.findall(r'\bnote\("([^"]+)"', handlers))


@pytest.mark.parametrize("language", [tag for tag in translations() if tag != "en"])
def test_every_word_is_translated_and_none_is_left_over(language):
    words = translations()[language]
    assert set(words) == words_of_the_page()
    assert all(words.values())


def test_two_languages_beside_english():
    assert set(translations()) == {"en", "es", "zh-CN"}
