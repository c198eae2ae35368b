"""Every test starts in graph mode on CPU with the same seeds, in an empty working directory."""

import sys
from pathlib import Path

import mindspore as ms
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(autouse=True)
def graph_mode(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MindSpore leaves rank_0/ where a compilation fails
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(1)


@pytest.fixture
def command(tmp_path):
    """Runs one of the project's scripts with this Python in ``tmp_path``; gives the finished process."""
    import subprocess

    def run(script: str, *arguments: object, status: int = 0, timeout: int = 600) -> subprocess.CompletedProcess:
        line = [sys.executable, str(ROOT / script), *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, encoding="utf-8", cwd=tmp_path, timeout=timeout)
        assert done.returncode == status, done.stdout + done.stderr
        if status == 2:
            assert "Traceback" not in done.stderr
            assert done.stderr.strip().splitlines()[-1].startswith(("error: ", Path(script).name))
        return done

    return run
