"""The script of the README's Python section prints what the README shows."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

SECTION = re.compile(r"## Python\n.*?```python\n(.*?)```\n\n```\n(.*?)```", re.DOTALL)


@pytest.mark.slow
def test_the_script_of_the_readme(command, tmp_path):
    script, shown = SECTION.search((ROOT / "README.md").read_text(encoding="utf-8")).groups()
    assert len(script.splitlines()) <= 15
    command("tools/make_digits.py", "demo/digits")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", cwd=tmp_path, timeout=900
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("[")]
    assert lines[:2] == shown.splitlines()[:2]
    assert lines[2].startswith("MindSpore ") and "largest difference from the model" in lines[2]
    assert (tmp_path / "three.png").stat().st_size > 1000 and (tmp_path / "digits.mindir").exists()
    assert "Exception ignored" not in done.stderr
