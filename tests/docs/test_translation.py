"""Compare the code blocks and links of README.zh-CN.md with those of README.md."""

import re

import pytest
from pages import BLOCK, ROOT, prose, without_comments

ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
pytestmark = pytest.mark.skipif(not CHINESE.is_file(), reason="there is no README.zh-CN.md")


def code(page):
    """Return (language, text) of every code block; comments may be translated."""
    return [(language, without_comments(text)) for language, text in BLOCK.findall(page.read_text(encoding="utf-8"))]


def links(page):
    """Return the targets of the links, except anchors and the link to the other language."""
    targets = re.findall(r"\]\(([^)#\s]+)", prose(page))
    return {target for target in targets if not target.startswith("README")}


def test_same_code_blocks_in_the_same_order():
    assert code(CHINESE) == code(ENGLISH)


def test_same_links():
    assert links(CHINESE) == links(ENGLISH)


def test_each_links_to_the_other():
    assert "(README.zh-CN.md)" in ENGLISH.read_text(encoding="utf-8")
    assert "(README.md)" in CHINESE.read_text(encoding="utf-8")
