"""Check that every message in a heading of docs/faq.md is in the sources."""

import ast
import re

import pytest
from pages import ROOT

MODULES = [*sorted((ROOT / "msg_ms").rglob("*.py")), *sorted((ROOT / "tools").glob("*.py"))]
MODULES += [ROOT / "train.py", ROOT / "eval.py"]
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
FAQ = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
# A heading without a code span at its beginning describes a problem that has no message of ours.
QUOTES = [
    quote for heading in re.findall(r"^### (`.*`)$", FAQ, re.MULTILINE) for quote in re.findall("`(.+?)`", heading)
]


def messages() -> set[str]:
    """Return all strings of the package and lines of the scripts, with ``...`` in place of inserted values."""
    found = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(str(v.value) if isinstance(v, ast.Constant) else "..." for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    for script in SCRIPTS:
        found |= {re.sub(r"\$\{?\w+\}?", "...", line) for line in script.read_text(encoding="utf-8").splitlines()}
    return found


MESSAGES = messages()


@pytest.mark.parametrize("quote", QUOTES)
def test_the_message_exists(quote):
    pattern = re.compile(".*".join(re.escape(piece) for piece in quote.split("...")), re.DOTALL)
    assert any(pattern.search(message) for message in MESSAGES)


def test_each_entry_has_a_cause_and_a_fix():
    entries = re.split(r"^### ", FAQ, flags=re.MULTILINE)[1:]
    assert len(entries) >= 30
    for entry in entries:
        assert "- **Cause**: " in entry and "- **Fix**: " in entry, entry.splitlines()[0]
