"""The wheel alone, without the repository: its kernels, its data and its commands, in a folder elsewhere."""

import os
import pkgutil
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT

COMMANDS = ["msg-ms-convert", "msg-ms-doctor", "msg-ms-export", "msg-ms-mindcv-run", "msg-ms-predict"]
PREDICT = """
import sys
from pathlib import Path

import mindspore as ms
import numpy as np

import msg_ms
from msg_ms.data.images.class_names import imagenet_classes
from msg_ms.ops.backend import native_library

assert Path(msg_ms.__file__).is_relative_to(sys.prefix), msg_ms.__file__
msg_ms.ops.set_backend("native")
assert native_library().is_relative_to(Path.cwd() / "kernels")  # compiled from the wheel's own sources
model = msg_ms.create_model("msg_tiny", num_classes=1000, depths=(1, 1, 1, 1)).set_train(False)
logits = model(ms.Tensor(np.ones((1, 3, 224, 224), np.float32))).asnumpy()
assert logits.shape == (1, 1000) and np.isfinite(logits).all()
assert imagenet_classes()[207].short == "golden retriever"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Runs a program of an environment that has the wheel, and otherwise what this one has; gives the process."""
    pytest.importorskip("setuptools", minversion="70.1")
    folder = tmp_path_factory.mktemp("wheel")
    source, environment, work = folder / "source", folder / "env", folder / "work"
    source.mkdir()
    work.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):  # building writes beside them
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "msg_ms", source / "msg_ms", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    # A .pth adds the folder, but not the editable installs in it.
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MSG_MS_OPS")}
    variables["MSG_MS_CACHE"] = str(work / "kernels")

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess:
        line = [environment / "bin" / program, *map(str, arguments)]
        return subprocess.run(line, cwd=work, env=variables, capture_output=True, encoding="utf-8")

    return run


@pytest.mark.slow
def test_a_model_predicts_with_native_kernels(installed):
    done = installed("python", "-c", PREDICT)
    assert done.returncode == 0, done.stderr


def test_the_entries_are_those_that_are_tried():
    section = (ROOT / "pyproject.toml").read_text("utf-8").split("[project.scripts]\n")[1].split("\n\n")[0]
    found = dict(re.findall(r'^([\w-]+) = "(.+)"$', section, re.MULTILINE))
    assert list(found) == COMMANDS
    assert all(callable(pkgutil.resolve_name(entry)) for entry in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers(command, installed):
    done = installed(command, "--help")
    assert done.returncode == 0 and f"usage: {command}" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_a_checkpoint_converts_and_a_mistake_is_one_line(installed):
    source = ROOT / "tests" / "fixtures" / "ckpt_epoch_3.pth"
    done = installed("msg-ms-convert", "--input", source, "--output", "ours.safetensors", "--verify")
    assert done.returncode == 0 and "read back bit for bit" in done.stdout, done.stderr
    done = installed("msg-ms-export", "--cfg", "gone.yaml", "--resume", "ours.safetensors", "--output", "x.mindir")
    assert done.returncode == 2 and done.stderr.strip().splitlines()[-1].startswith("error: ")
