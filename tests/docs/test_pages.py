"""Check the scripts, flags, keys, imports and links in the guides. ``run_all.py`` runs the commands themselves."""

import argparse
import ast
import importlib
import importlib.util
import itertools
import re
import sys

import pytest
from pages import CHINESE, PAGES, ROOT, blocks, commands, prose

from msg_ms.config import load_config
from msg_ms.engine.task import Task

# Shell scripts: the Python script that parses their arguments, and the flags of the positional ones.
WRAPPERS = {
    "scripts/run_standalone_train.sh": ("train.py", ["--cfg", "--data-path"]),
    "scripts/run_distribute_train.sh": ("train.py", [None, "--cfg", "--data-path"]),
    "scripts/run_eval.sh": ("eval.py", ["--cfg", "--data-path", "--resume"]),
    "scripts/run_distribute_eval.sh": ("eval.py", [None, "--cfg", "--data-path", "--resume"]),
}
# Programs of others, with flags of their own.
FOREIGN = {"pip", "git", "cd", "ls", "tail", "source", "apt", "npu-smi", "nvidia-smi", "converter_lite"}
# Installed commands, and the scripts in tools/ that have the same parser.
INSTALLED = {
    "msg-ms-convert": "tools/convert_torch_ckpt.py",
    "msg-ms-export": "tools/export.py",
    "msg-ms-mindcv-run": "tools/mindcv_run.py",
    "msg-ms-predict": "tools/predict.py",
}
# The pages that describe the flags of a script.
FLAG_PAGES = {
    "train.py": ["paper.md"],
    "eval.py": ["paper.md", "evaluate.md", "detection.md"],
    "tools/predict.py": ["predict.md", "paper.md"],
    "tools/export.py": ["export.md", "paper.md"],
    "tools/convert_torch_ckpt.py": ["convert.md"],
    "tools/check_dataset.py": ["data.md", "detection.md"],
    "tools/import_annotations.py": ["own_data.md"],
    "tools/serve.py": ["predict.md"],
    "tools/make_tar_files.py": ["data.md"],
    "tools/index_tar_files.py": ["data.md"],
    "tools/show_batch.py": ["data.md", "paper.md"],
    "tools/export_weights.py": ["training.md"],
}
COMMANDS = commands()


class Parsed(Exception):
    """Carries the arguments that a command's own parser has returned."""


def parse_with_main(script: str, arguments: list[str], whole: bool, monkeypatch) -> argparse.Namespace | None:
    """Call the script's ``main`` until it has parsed its arguments; return them, or None for an abbreviated command."""
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


def flags_of(script: str, monkeypatch) -> list[str]:
    """Return the long flags of a script, from its own parser."""
    found: list[str] = []

    def parse_args(self, *_):
        found.extend(flag for flag in self._option_string_actions if flag.startswith("--") and flag != "--help")
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    spec = importlib.util.spec_from_file_location("documented_script", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(Parsed):
        module.main()
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_script_and_flags_exist(command, monkeypatch):
    program, *words = command.words
    if program in FOREIGN or program == "msg-ms-doctor":
        return
    if program in INSTALLED:
        words.insert(0, INSTALLED[program])
    else:
        assert program in ("python", "bash"), "add the program to FOREIGN"
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]), words[1]
        return
    script, *arguments = words
    assert (ROOT / script).is_file(), script
    if script in WRAPPERS:
        script, names = WRAPPERS[script]
        given, arguments = arguments[: len(names)], arguments[len(names) :]
        arguments = [w for name, value in zip(names, given, strict=True) if name for w in (name, value)] + arguments
    if script.split("/")[0] in ("scripts", "benchmarks", "tests", "docs"):  # few of these have flags
        source = (ROOT / script).read_text("utf-8")
        assert all(f'"{word}"' in source for word in arguments if word.startswith("--"))
        return
    arguments = [word for word in arguments if word != "..."]
    parsed_arguments = parse_with_main(script, arguments, not (command.fragment or command.span), monkeypatch)
    cfg = getattr(parsed_arguments, "cfg", None)
    if cfg is not None and (ROOT / cfg).is_file():
        load_config(ROOT / cfg, getattr(parsed_arguments, "opts", []))


@pytest.mark.parametrize("script", FLAG_PAGES)
def test_every_flag_is_on_a_page(script, monkeypatch):
    text = "".join((ROOT / "docs" / page).read_text("utf-8") for page in FLAG_PAGES[script])
    missing = [flag for flag in flags_of(script, monkeypatch) if not re.search(rf"{flag}(?![\w-])", text)]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_compile_and_import(page):
    for line, text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("msg_ms"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), f"{page.name}:{line}"


@pytest.mark.parametrize("page", [*PAGES, *CHINESE], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_exist(page):
    text = prose(page)
    targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"(?:src|href)=\"([^\"#]+)", text)
    for target in targets:
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [*PAGES, *CHINESE], ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_the_repository_exist(page):
    spans = re.findall(r"`((?:msg_ms|benchmarks|configs|docs|scripts|tests|tools)/[\w./*-]+)`", prose(page))
    assert not [path for path in spans if not any(ROOT.glob(path))]


@pytest.mark.parametrize("page", [*PAGES, *CHINESE], ids=lambda page: str(page.relative_to(ROOT)))
def test_lists_follow_an_empty_line(page):
    """Without it, the site shows the list as one paragraph."""
    item = re.compile(r"(?:[-*+]|1\.) ")
    lines = prose(page).splitlines()
    assert not [
        line
        for before, line in itertools.pairwise(lines)
        if item.match(line) and before.strip() and not before.startswith(" ") and not item.match(before)
    ]


def test_every_guide_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    guides = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert not [name for name in guides if f"({name})" not in index]


def test_every_part_of_a_task_is_described():
    page = (ROOT / "docs" / "extend.md").read_text("utf-8")
    section = page.partition("## A task")[2].partition("\n## ")[0]
    names = {name for name in (*vars(Task), *Task.__annotations__) if not name.startswith("_")}
    assert names and not [name for name in sorted(names) if f"`{name}`" not in section]
