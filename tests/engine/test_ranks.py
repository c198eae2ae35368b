"""Several CPU processes under msrun, MindSpore's own launcher."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from conftest import ROOT
from mindspore import Parameter, Tensor, nn
from support.reference import SMALL
from support.script import free_port

from msg_ms.engine.ranks import GradientSum


def launch(ranks: int, script: str, *arguments: object, cwd: Path, **environment: str) -> None:
    """Run a script of tests/support in ``ranks`` processes, or in one of its own."""
    binaries = Path(sys.executable).parent
    launcher = [binaries / "msrun", f"--worker_num={ranks}", f"--local_worker_num={ranks}", "--join=True"]
    line = [*launcher, f"--master_port={free_port()}"] if ranks > 1 else [sys.executable]
    paths = {"PATH": f"{binaries}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(
        [*line, ROOT / "tests" / "support" / script, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **paths, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_an_overflow_on_one_rank_is_skipped_by_all(tmp_path):
    launch(2, "rank_overflow.py", cwd=tmp_path, MODEL=json.dumps(SMALL))
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text("utf-8")) for rank in (0, 1)]
    assert ranks[0] == ranks[1]  # weights as well, although the images differ
    first, spoilt, last = ranks[0]
    assert [update["finite"] for update in ranks[0]] == [True, False, True]
    assert [update["scale"] for update in ranks[0]] == [8.0, 4.0, 4.0]
    assert first["weights"] == spoilt["weights"] != last["weights"]


def test_one_rank_of_a_machine_lists_the_images_for_all(tmp_path):
    for part in ("good/train", "good/val", "bad/train", "bad/val"):
        for name in ("a/1.png", "b/0.png", "b/2.JPEG", "c/x.jpg", "c/notes.txt"):
            file = tmp_path / part / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
    (tmp_path / "bad/val/c/x.jpg").write_bytes(b"")
    launch(2, "rank_shared.py", "good", "bad", cwd=tmp_path)
    first, second = [json.loads((tmp_path / f"rank{rank}.json").read_text("utf-8")) for rank in (0, 1)]
    assert first["good"] == second["good"] and first["bad"] == second["bad"]
    assert first["good"][0] == [f"good/train/{name}" for name in ("a/1.png", "b/0.png", "b/2.JPEG", "c/x.jpg")]
    assert first["good"][1] == [0, 1, 1, 2] and "1 entries that are not images: c/notes.txt" in first["good"][4][0]
    assert "bad/val: empty files: c/x.jpg; remove or download them again" in first["bad"]
    assert (first["good listed"], second["good listed"], second["bad listed"]) == (6, 0, 0)
    assert first["left"] == second["left"] == []


@pytest.mark.parametrize(
    ("optimizer", "ranks", "accumulation"),
    [
        ("adamw", 2, 2),
        pytest.param("sgd", 2, 1, marks=pytest.mark.slow),
        pytest.param("sgd", 4, 1, marks=pytest.mark.slow),
        pytest.param("sgd", 2, 2, marks=pytest.mark.slow),
        pytest.param("adamw", 2, 1, marks=pytest.mark.slow),
        pytest.param("adamw", 4, 1, marks=pytest.mark.slow),
        pytest.param("adamw", 4, 2, marks=pytest.mark.slow),
    ],
)
def test_ranks_train_as_one_process(optimizer, ranks, accumulation, tmp_path):
    """Ten updates with the same images each, and the ranks' weights equal after every one."""
    launch(1, "rank_parallel.py", tmp_path / "one.npz", optimizer, 1, cwd=tmp_path)
    launch(ranks, "rank_parallel.py", tmp_path / "many.npz", optimizer, accumulation, cwd=tmp_path)
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "many.npz") as many:
        differences = {}
        for name in one.files:
            difference = np.abs(one[name] - many[name])
            # The message row's gradient is zero but for rounding, which Adam blows up.
            differences[name] = difference[:, 0].max() if name.endswith("rel_pos_msg") else difference.max()
    worst = max(differences, key=differences.get)
    print(optimizer, ranks, accumulation, worst, differences[worst])
    assert differences[worst] < 1e-6, worst


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "ranks"), [(2, 2), (4, 4), (4, 2)])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_ranks_train_a_detector_as_one_process(optimizer, parts, ranks, tmp_path):
    """Ten updates with the same parts of a batch; normalisation by fixed statistics."""
    files = [tmp_path / f"{count}.npz" for count in (1, ranks)]
    for file, count in zip(files, (1, ranks), strict=True):
        launch(count, "rank_detector.py", file, optimizer, parts, cwd=tmp_path)
    with np.load(files[0]) as one, np.load(files[1]) as many:
        differences = {}
        for name in one.files:
            difference = np.abs(one[name] - many[name])
            # The message row's gradient is zero but for rounding, which Adam blows up.
            differences[name] = difference[:, 0].max() if name.endswith("rel_pos_msg") else difference.max()
        losses, moved = differences.pop("losses"), np.ptp(one["losses"][:, 0])
    worst = max(differences, key=differences.get)
    print(worst, differences[worst], "losses:", losses, "of", moved)
    assert differences[worst] < 1e-5, worst
    assert losses < 1e-4


class Double(nn.Cell):
    """In place of the all-reduce of two ranks with equal gradients."""

    def construct(self, x):
        return x * 2


def test_the_gradients_of_hundreds_of_parameters_are_summed():
    """A detector has more parameters than the compiler accepts nested calls."""
    ms.set_context(mode=ms.GRAPH_MODE)
    draws = np.random.RandomState(0)
    arrays = [draws.randn(i % 5 + 1, i % 3 + 2).astype(np.float32) for i in range(400)]
    gradient_sum = GradientSum([Parameter(Tensor(a), name=f"p{i}") for i, a in enumerate(arrays)], "CPU")
    gradient_sum.all_reduce = Double()
    totals, figures = gradient_sum(tuple(map(Tensor, arrays)), Tensor([3.0, 5.0], ms.float32))
    for total, values in zip(totals, arrays, strict=True):
        np.testing.assert_array_equal(total.asnumpy(), 2 * values)
    assert figures.asnumpy().tolist() == [6.0, 10.0]
