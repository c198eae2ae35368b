"""The tools that check the code have the same versions wherever they are named."""

import re

import yaml
from conftest import ROOT


def test_pre_commit_has_the_versions_of_the_extra():
    extra = re.search(r"^dev = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text("utf-8"), re.M | re.S)[1]
    pinned = set(re.findall(r'"([^"]+==[^"]+)"', extra))
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    used = {requirement for hook in hooks for requirement in hook["additional_dependencies"]}
    assert used <= pinned and {text.partition("=")[0] for text in used} == {"clang-format", "codespell[toml]", "ruff"}


def test_what_pre_commit_runs_is_in_the_test_script():
    script = (ROOT / "scripts" / "run_tests.sh").read_text("utf-8")
    for command in ("ruff check", "ruff format --check", "clang-format", "mypy", "codespell", "pytest"):
        assert command in script
