"""Run the commands of the README files and the guides: python tests/docs/run_all.py [WORD...].

With words, only the commands that contain one of them run. All commands run in one copy of the repository, with a small
data set and shallow models in place of ImageNet's, and must exit with status 0. The tables below list the replacements
and the commands that are skipped. Takes about 15 minutes. Set MSG_MS_MINDCV to a clone of mindcv 0.3.0 to run its
commands.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pages import ROOT, Command, blocks, commands

LIMIT = 600  # seconds for a command
DIGITS = "demo/digits_p4_win4_64/default"

# Skipped commands: a pattern, and the reason.
SKIPPED = [
    (r"run_tests\.sh|-m pytest|-m ruff", "the tests and the linter, which continuous integration runs"),
    (r"tests/docs/run_all", "this script"),
    (r"pip (install|wheel)", "changes the environment; tests/end_to_end/test_wheel.py installs the wheel"),
    (r"git clone", "needs the network; MSG_MS_MINDCV replaces the clone"),
    (r"^(source|npu-smi|nvidia-smi|converter_lite|apt) ", "needs a device's software"),
    (r"^tail -f|tools/serve\.py", "never ends"),
    (r"run_version_matrix", "installs four versions of MindSpore"),
    (r"NNODES=2", "needs two nodes; `pytest -m slow tests/launch` starts them on one"),
    (r"^python benchmarks/", "minutes of timing, and peers to install"),
    (r"faults\.py", "minutes of killed processes"),
    (r"\|FOLDER|\.\.\.$|export_weights\.py --ema$", "abbreviated"),
]
# Replacements in the commands, in this order.
REPLACED = [
    (r"<imagenet>|(?<=check_dataset\.py )X$", "imagenet"),  # made below, with two classes
    (r"<tars>", "tar_files"),  # written by the first command that names it
    (r"<image>", "coco/val2017/0000.png"),
    (r"<coco>", "coco"),  # made below, with two classes
    (r"<folder>|<run>", DIGITS),  # the run of the quickstart
    (r"--cfg F\b", "--cfg configs/digits_p4_win4_64.yaml"),
    (r"(?<=digits_p4_win4_64\.yaml --data-path )(D|imagenet)$", "demo/digits"),
    (r"(--device-target |DEVICE_TARGET=)(Ascend|GPU)", r"\1CPU"),  # the device of this machine
    (r"(run_distribute_\w+\.sh) 8", r"\1 2"),  # processes for two cores
    (r"(?<=imagenet )(.*)--batch-size \d+", r"\1--batch-size 2"),  # of eight images
    (r"--amp-opt-level O[12]", "--amp-opt-level O0"),  # half precision is emulated on CPU
    (r"TRAIN\.EPOCHS 30 TRAIN\.WARMUP_EPOCHS 5", "TRAIN.EPOCHS 1 TRAIN.WARMUP_EPOCHS 0"),  # minutes
    (r"msg_tiny-2_\d+\.ckpt", "msg_tiny-2_1.ckpt"),  # one step per epoch
    (r"--pretrained msg_tiny\.ckpt (.*) TRAIN\.EPOCHS 12", r"--pretrained detector.ckpt \1 TRAIN.EPOCHS 1"),  # smaller
    # mindcv trains the full msg_tiny.
    (r"(?=MODEL\.NUM_CLASSES 10 TEST\.CROP False)", "MODEL.MSG.DEPTHS [2,4,12,4] "),
]
# Replacements in the copied configurations.
SMALL_RUN = "DATA: {BATCH_SIZE: 2, NUM_WORKERS: 1}\nTRAIN: {EPOCHS: 1, WARMUP_EPOCHS: 0}\n"
SMALL_CANVAS = """DETECTION: {SHORT_SIDES: [96], LONG_SIDE: 128, CROP: 0.0, TEST_SHORT_SIDE: 96, TEST_LONG_SIDE: 128,
  CANVASES: [[128, 128]]}
"""
SHALLOW = {
    "configs/msg_*_p4_win7_224.yaml": [
        (r"DEPTHS: .*", "DEPTHS: [1, 1, 1, 1]"),
        (r"MODEL:\n", "MODEL:\n  NUM_CLASSES: 2\n"),
        (r"\Z", SMALL_RUN),
    ],
    "configs/digits_p4_win4_64.yaml": [(r"EPOCHS: 9", "EPOCHS: 2")],
    "configs/coco/cascade_mask_rcnn_msg_tiny.yaml": [
        (r"NUM_CLASSES: 80", "NUM_CLASSES: 2"),
        (r"EMBED_DIM: 64", "EMBED_DIM: 16"),
        (r"DEPTHS: .*", "DEPTHS: [1, 1, 1, 1]"),
        (r"(?=  MSG:\n)", "  RCNN: {FPN_CHANNELS: 16, FC_CHANNELS: 16, TRAIN_PROPOSALS: 50, ROI_SAMPLES: 16}\n"),
        (r"EPOCHS: 36", "EPOCHS: 1"),
        (r"WARMUP_STEPS: 500", "WARMUP_STEPS: 1"),
        (r"\Z", SMALL_CANVAS),
    ],
    "configs/coco/digits_scenes.yaml": [(r"EPOCHS: 5", "EPOCHS: 1")],
    "configs/mindcv/msg_tiny_digits.yaml": [(r'(?<=data_dir: )"demo/digits"', '"few"')],
}
SETUP = """
import sys
from pathlib import Path

import cv2
import numpy as np

import msg_ms
from msg_ms.checkpoint import EMA_PREFIX, parameters_by_name, to_numpy, write_checkpoint
from msg_ms.config import load_config
from msg_ms.convert import export_state_dict, write_torch_file
from msg_ms.models.build import build_model
from msg_ms.models.detection.build import build_detector

generator = np.random.default_rng(0)


def images(folder, classes, count, size):
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True)
        for i in range(count):
            image = generator.integers(0, 256, (size, size + 20, 3), np.uint8)
            cv2.imwrite(str(folder / str(label) / f"{i}.jpg"), image)


for split, count in (("train", 4), ("val", 2)):
    images(Path("imagenet") / split, 2, count, 240)
    images(Path("few") / split, 10, count // 2, 64)
sys.path.insert(0, "tests")
from support.coco import small_coco, write_split

for name in ("train2017", "val2017"):
    write_split(Path("coco"), name, *small_coco([(60, 80), (80, 60)] * 2))
config = load_config("configs/coco/cascade_mask_rcnn_msg_tiny.yaml")
write_checkpoint(Path("detector.ckpt"), to_numpy(parameters_by_name(build_detector(config.model).get_parameters())))
Path("checkpoints").mkdir()
for name in ("msg_tiny", "msg_base"):
    config = load_config(f"configs/{name}_p4_win7_224.yaml")
    weights = to_numpy(parameters_by_name(build_model(config.model, 224).get_parameters()))
    torch = export_state_dict(weights)
    write_checkpoint(Path(f"{name}.ckpt"), weights)
    write_torch_file(Path(f"checkpoints/{name}.pth"), torch)
    if name == "msg_tiny":
        write_torch_file(Path("ckpt_epoch_299.pth"), torch)
        both = {f"{key}.{n}": value for key in ("model", "model_ema") for n, value in torch.items()}
        write_torch_file(Path("ckpt.pth"), both)
        write_checkpoint(Path("ckpt_1000.ckpt"), {**weights, **{EMA_PREFIX + n: value for n, value in weights.items()}})
"""


def copy_repository(folder: Path, environment: dict[str, str]) -> None:
    """Copy the repository, with small configurations, data and checkpoints, and this interpreter as ``.venv``."""
    ignored = shutil.ignore_patterns(".git", ".venv*", "__pycache__", "demo", "output", "build", "*.egg-info", "rank_*")
    shutil.copytree(ROOT, folder, ignore=ignored, dirs_exist_ok=True)
    for pattern, changes in SHALLOW.items():
        for file in folder.glob(pattern):
            text = file.read_text("utf-8")
            for before, after in changes:
                text, count = re.subn(before, after, text, count=1)
                assert count, (file, before)
            file.write_text(text, encoding="utf-8")
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    (programs / "python").chmod(0o755)
    digest = subprocess.run(
        "cksum < pyproject.toml", shell=True, cwd=folder, capture_output=True, encoding="utf-8"
    ).stdout
    (folder / ".venv" / f".installed-{digest.split()[0]}").touch()  # scripts/venv.sh checks for it
    shutil.copy(ROOT / "tests" / "fixtures" / "half.pth", folder)
    shutil.copy(ROOT / "tests" / "fixtures" / "detection" / "mmdet_checkpoint.pth", folder / "detector.pth")
    if clone := os.environ.get("MSG_MS_MINDCV"):
        (folder / "mindcv").symlink_to(Path(clone).resolve())
    subprocess.run([sys.executable, "-c", SETUP], cwd=folder, env=environment, check=True)


def reason_to_skip(command: Command) -> str:
    """Return why the command cannot run here, or an empty string."""
    for pattern, reason in SKIPPED:
        if re.search(pattern, command.text):
            return reason
    if "mindcv_run" in command.text or "demo/mindcv" in command.text:
        return "" if os.environ.get("MSG_MS_MINDCV") else "MSG_MS_MINDCV is not set"
    if "build_docs" in command.text and importlib.util.find_spec("mkdocs") is None:
        return "mkdocs is not installed"
    return ""


def replaced(text: str) -> str:
    for pattern, replacement in REPLACED:
        text = re.sub(pattern, replacement, text)
    return text


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run(text: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a command in ``folder``, after removing ``output/``, and return its status and last lines of output."""
    shutil.rmtree(folder / "output", ignore_errors=True)
    environment = {**environment, "MASTER_PORT": str(free_port())}
    line = ["timeout", "--signal=INT", str(LIMIT), "bash", "-c", text]
    done = subprocess.run(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )
    return done.returncode, "\n".join(done.stdout.strip().splitlines()[-15:])


def make_example(folder: Path, environment: dict[str, str]) -> None:
    """Create the data set and the configuration of docs/finetune.md from the page's own blocks."""
    page = ROOT / "docs" / "finetune.md"
    _, configuration = next(blocks(page, "yaml"))
    (folder / "my_images.yaml").write_text(configuration, encoding="utf-8")
    for _, script in blocks(page, "sh"):
        status, output = run(script, folder, environment)
        assert status == 0, output


def make_shapes(folder: Path, environment: dict[str, str]) -> None:
    """Create the data set and the configuration of docs/own_data.md from the page's own blocks."""
    page = ROOT / "docs" / "own_data.md"
    ((_, configuration),), ((_, script),) = blocks(page, "yaml"), blocks(page, "python")
    configuration, count = re.subn(r"EPOCHS: \d+", "EPOCHS: 1", configuration)
    assert count == 1
    (folder / "my_shapes.yaml").write_text(configuration, encoding="utf-8")
    (folder / "draw_shapes.py").write_text(script, encoding="utf-8")
    status, output = run("python draw_shapes.py", folder, environment)
    assert status == 0, output


def main() -> int:
    words = sys.argv[1:]
    selected = [c for c in commands() if not words or any(word in str(c) for word in words)]
    failed = skipped = 0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "repository"
        # The second folder has the installed msg-ms-* commands.
        path = os.pathsep.join([str(folder / ".venv" / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}
        copy_repository(folder, environment)
        if words and selected and "quickstart" not in selected[0].text:
            run("bash scripts/quickstart.sh", folder, environment)  # creates demo/, which most commands use
        seen: set[str] = set()
        for command in selected:
            text = replaced(command.text)
            reason = reason_to_skip(command) or ("repeated" if text in seen else "")
            seen.add(text)
            if reason:
                skipped += 1
                print(f"skipped        {command} ({reason})", flush=True)
                continue
            if "my_images" in text and not (folder / "my_images").exists():
                make_example(folder, environment)
            if "my_shapes" in text and not (folder / "my_shapes").exists():
                make_shapes(folder, environment)
            started = time.monotonic()
            status, output = run(text, folder, environment)
            print(f"{'ok' if status == 0 else 'FAILED':7} {time.monotonic() - started:4.0f} s {command}", flush=True)
            if status:
                failed += 1
                print(f"    as: {text}\n    status {status}:\n{output}", flush=True)
    ran = len(selected) - skipped
    print(f"{ran - failed} of {ran} commands exited with status 0, {skipped} skipped, {time.monotonic() - begin:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
