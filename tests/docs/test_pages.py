"""What the guides show exists: scripts, flags, keys, imports, links. ``run_all.py`` runs the commands themselves."""

import argparse
import ast
import importlib
import importlib.util
import re
import sys

import pytest
from pages import BLOCK, PAGES, ROOT, blocks, commands

from msg_ms.config import load_config

# Scripts in bash, and the parser that their arguments end at.
WRAPPERS = {
    "scripts/run_standalone_train.sh": ("train.py", ["--cfg", "--data-path"]),
    "scripts/run_distribute_train.sh": ("train.py", [None, "--cfg", "--data-path"]),
    "scripts/run_eval.sh": ("eval.py", ["--cfg", "--data-path", "--resume"]),
    "scripts/run_distribute_eval.sh": ("eval.py", [None, "--cfg", "--data-path", "--resume"]),
}
FOREIGN = {"pip", "git"}
COMMANDS = commands()


class Parsed(Exception):
    """Carries what a command's own parser made of its arguments."""


def parsed_by_its_main(script: str, arguments: list[str], whole: bool, monkeypatch) -> argparse.Namespace | None:
    """Call the script's ``main`` up to where it has parsed; None where it has no parser."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(self, *_):
        unknown = [w for w in arguments if w.startswith("--") and w.split("=")[0] not in self._option_string_actions]
        # mindcv's scripts have flags of their own.
        assert not unknown or any(a.nargs == argparse.REMAINDER for a in self._actions), unknown
        raise Parsed(original(self) if whole else None)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(argparse.ArgumentParser, "error", lambda self, message: pytest.fail(message))
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    spec = importlib.util.spec_from_file_location("documented_script", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(Parsed) as parsed:
        module.main()
    return parsed.value.args[0]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_its_script_and_flags_exist(command, monkeypatch):
    program, *words = command.words
    if program in FOREIGN:
        return
    assert program in ("python", "bash"), "what runs this?"
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]), words[1]
        return
    script, *arguments = words
    assert (ROOT / script).is_file(), script
    if script in WRAPPERS:
        script, names = WRAPPERS[script]
        given, arguments = arguments[: len(names)], arguments[len(names) :]
        arguments = [w for name, value in zip(names, given, strict=True) if name for w in (name, value)] + arguments
    if script.split("/")[0] in ("scripts", "benchmarks", "tests"):  # none of those here takes a flag
        assert not any(word.startswith("--") for word in arguments)
        return
    arguments = [word for word in arguments if word != "..."]
    found = parsed_by_its_main(script, arguments, not (command.fragment or command.span), monkeypatch)
    cfg = getattr(found, "cfg", None)
    if cfg is not None and (ROOT / cfg).is_file():
        load_config(ROOT / cfg, getattr(found, "opts", []))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_it_compiles_and_imports_what_there_is(page):
    for line, text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("msg_ms"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), f"{page.name}:{line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_every_guide_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    guides = {page.name for page in PAGES if page.parent == ROOT / "docs"} - {"README.md"}
    assert guides == {name for name in guides if f"({name})" in index}
