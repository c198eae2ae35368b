"""Text files are opened with an encoding: the locale's is ASCII under LC_ALL=C, and GBK on many Chinese machines.

Ruff's PLW1514 does the same where it can infer that an object is a path; this test looks at every call.
"""

from __future__ import annotations

import ast

from conftest import ROOT

FOLDERS = ("msg_ms", "tools", "benchmarks", "tests", "docs", "scripts")
# The place of the encoding, and of the mode, among the positional arguments.
METHODS = {"read_text": (0, None), "write_text": (1, None), "open": (2, 0)}
FUNCTIONS = {"open": (3, 1), "fdopen": (3, 1), "TemporaryFile": (2, 0), "NamedTemporaryFile": (2, 0)}
BINARY_BY_DEFAULT = ("TemporaryFile", "NamedTemporaryFile")
PROCESSES = ("run", "Popen", "check_output", "check_call", "call")
# No text files: archives, images and devices; `os.open` takes flags.
OTHERS = ("tarfile", "zipfile", "Image", "PIL", "os", "webbrowser")


def without_encoding(tree: ast.AST) -> list[int]:
    """Return the lines of calls that take the locale's encoding."""
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and takes_locale(node)]


def takes_locale(call: ast.Call) -> bool:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keywords or None in keywords:
        return False
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    owner = getattr(function.value, "id", "") if isinstance(function, ast.Attribute) else ""
    if name in PROCESSES:
        return any(is_true(keywords.get(flag)) for flag in ("text", "universal_newlines"))
    if owner in OTHERS and name == "open":
        return False
    function_like = not isinstance(function, ast.Attribute) or owner in ("tempfile", "os", "io", "codecs")
    place = (FUNCTIONS if function_like else METHODS).get(name)
    if place is None:
        return False
    encoding, mode = place
    if len(call.args) > encoding:
        return False
    given = keywords.get("mode", call.args[mode] if mode is not None and len(call.args) > mode else None)
    if given is None:
        return name not in BINARY_BY_DEFAULT
    # Another first argument is the name of a member of an archive.
    return isinstance(given, ast.Constant) and isinstance(given.value, str) and set(given.value) <= set("rwaxt+")


def is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def test_the_rule_finds_what_it_should():
    sound = "open(p, 'rb'); p.open('wb'); p.read_text('utf-8'); p.write_text(t, encoding='utf-8'); run(x, text=False)"
    assert not without_encoding(ast.parse(sound))
    for call in (
        "open(p)",
        "p.open()",
        "p.open('a+')",
        "p.read_text()",
        "p.write_text(t)",
        "subprocess.run(x, text=True)",
    ):
        assert without_encoding(ast.parse(call)), call


def test_no_text_depends_on_the_locale():
    files = [*ROOT.glob("*.py"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))]
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in files
        for line in without_encoding(ast.parse(file.read_text("utf-8")))
    ]
    assert not found, "\n".join(found)
