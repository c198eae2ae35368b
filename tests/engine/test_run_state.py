"""The checkpoints of a run: which are kept, which one it resumes from, and what kills and full disks leave."""

import json
import os
import resource
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from mindspore import Parameter, Tensor

from msg_ms import UserError
from msg_ms.checkpoint import read_checkpoint, to_numpy, write_checkpoint
from msg_ms.config import load_config
from msg_ms.engine.callbacks import Callbacks, TensorBoard
from msg_ms.engine.log import RunLog, read_metrics
from msg_ms.engine.run_state import Checkpoints
from msg_ms.engine.train_state import TrainState
from msg_ms.engine.train_step import Figures
from msg_ms.files import PARTIAL, remove_partial

START = TrainState(epoch_steps=10, batch_size=8, seed=3, samples=80)


class Run:
    """The checkpoints of a run in the working directory, with the lines that it logged."""

    def __init__(self, ema: bool = False, size: int = 3, **overrides):
        self.config = load_config(None, TAG="run", MODEL__NAME="m", **overrides)
        self.lines = []
        self.info = self.lines.append
        self.parameters = {
            "": {"w": self.parameter("w", size)},
            "optimizer.": {"moment1.w": self.parameter("moment1.w", size)},
            "scaler.": {},
        }
        if ema:
            self.parameters["ema."] = {"w": self.parameter("ema.w", size)}
        self.checkpoints = Checkpoints(self.config, self.parameters, self)

    @staticmethod
    def parameter(name: str, size: int) -> Parameter:
        return Parameter(Tensor(np.zeros(size, np.float32)), name=name)

    def save(self, step: int, **changes) -> None:
        for group in self.parameters.values():
            for parameter in group.values():
                parameter.set_data(Tensor(np.full(parameter.shape, step, np.float32)))
        self.checkpoints.save(replace(START, step=step, epoch=step // 10, best_score=99.5, **changes))

    def names(self) -> list[str]:
        return sorted(os.listdir(self.config.run_dir))

    def values(self) -> set[float]:
        return {float(x) for group in self.parameters.values() for p in group.values() for x in p.asnumpy()}


def test_the_last_few_and_the_best_stay():
    run = Run(KEEP_LAST=2)
    for step in (5, 10, 15, 20):
        run.save(step)
    run.checkpoints.save_best(START)
    assert run.names() == ["best.ckpt", "ckpt_00000015.ckpt", "ckpt_00000020.ckpt"]
    arrays, metadata = read_checkpoint(run.checkpoints.best)
    assert arrays.keys() == {"w"} and metadata["config"].startswith("TASK:")


def test_a_run_resumes_from_the_newest_good_checkpoint_and_names_the_damaged_ones():
    run = Run()
    for step in (5, 10, 15):
        run.save(step)
    for name, damage in (("ckpt_00000015.ckpt", b""), ("ckpt_00000010.ckpt", None)):
        path = run.config.run_dir / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 64
        path.write_bytes(data if damage is None else damage)
    again = Run()
    state = again.checkpoints.restore(START)
    assert state == replace(START, step=5, best_score=99.5) and again.values() == {5.0}
    assert [line.split(": ")[0][-18:] for line in again.lines[:2]] == ["ckpt_00000015.ckpt", "ckpt_00000010.ckpt"]
    assert (
        all(line.startswith("skipping damaged checkpoint ") for line in again.lines[:2])
        and "ckpt_00000005" in again.lines[2]
    )

    (run.config.run_dir / "ckpt_00000005.ckpt").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"all checkpoints in .* are damaged"):
        Run().checkpoints.restore(START)


def test_a_run_that_would_see_other_samples_is_refused():
    run = Run()
    run.save(5)
    for other in (replace(START, batch_size=6), replace(START, epoch_steps=9), replace(START, seed=4)):
        with pytest.raises(UserError, match=r"10 steps per epoch of 1 batch of 8 on 1 device with seed 3; this run"):
            Run().checkpoints.restore(other)
    # The same samples divided differently: two devices of four batches of one image.
    again = Run()
    layout = replace(START, batch_size=1, accumulation=4, world_size=2)
    assert again.checkpoints.restore(layout) == replace(layout, step=5, best_score=99.5)
    assert again.lines[1].startswith("the 8 samples of a step were 1 batch of 8 on 1 device and are now 4 batches of")


def test_changed_settings_are_logged():
    run = Run()
    run.save(5)
    again = Run(TRAIN__EPOCHS=310, OUTPUT="output")
    again.checkpoints.restore(START)
    assert again.lines[1:] == ["changed settings: TRAIN.EPOCHS 300 is now 310"]


def test_a_finished_folder_is_not_overwritten():
    Run().save(5)
    with pytest.raises(UserError, match=r"already holds a run .*use another --tag"):
        Run(TRAIN__AUTO_RESUME=False).checkpoints.restore(START)


def test_the_ema_starts_at_the_weights_if_a_checkpoint_has_none():
    Run().save(5)
    again = Run(ema=True)
    again.checkpoints.restore(START)
    assert again.values() == {5.0} and "the checkpoint has no such EMA of the weights; it starts now" in again.lines
    again.save(7)
    assert "the checkpoint's EMA of the weights is dropped" in str(_lines_of_restoring(Run()))


def _lines_of_restoring(run: Run) -> list[str]:
    run.checkpoints.restore(START)
    return run.lines


def test_a_run_starts_from_weights_alone():
    run = Run(ema=True)
    write_checkpoint(run.config.run_dir / "w.ckpt", {"w": np.full(3, 2, np.float32)})
    again = Run(ema=True, MODEL__RESUME=str(run.config.run_dir / "w.ckpt"))
    assert again.checkpoints.restore(START) is None and again.values() == {2.0, 0.0}
    assert (again.parameters["ema."]["w"].asnumpy() == 2).all()


def test_a_full_disk_is_logged_and_older_checkpoints_stay():
    run = Run(size=300_000)
    run.save(5)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # a write beyond fails as on a full disk
    try:
        run.save(10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run.names() == ["ckpt_00000005.ckpt"] and "older checkpoints are untouched" in run.lines[-1]
    assert "can't write" in run.checkpoints.failure
    assert Run(size=300_000).checkpoints.restore(START).step == 5
    run.save(15)
    assert run.names() == ["ckpt_00000005.ckpt", "ckpt_00000015.ckpt"] and not run.checkpoints.failure


def _await_partial_file(run: Run) -> None:
    """Wait until a save has begun."""
    deadline = time.monotonic() + 60
    while not any(name.startswith(PARTIAL) for name in run.names()):
        assert time.monotonic() < deadline


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_saves_always_leave_a_good_checkpoint(count: int):
    """Processes that save one checkpoint after the other are killed at random moments, ``count`` of them in a save."""
    run = Run(size=400_000, KEEP_LAST=1)
    run.save(1)
    draws = np.random.RandomState(0)
    reached = 1
    interrupted = finished = 0
    while interrupted < count or finished < count // 4:
        child = os.fork()
        if child == 0:
            for step in range(reached + 1, reached + 10_000):
                run.save(step)
            os._exit(1)
        # Half of the kills follow the beginning of a save closely, the others may fall anywhere.
        if interrupted < count:
            _await_partial_file(run)
        time.sleep(draws.choice([draws.uniform(0, 0.002), draws.uniform(0.005, 0.06)]))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        interrupted += any(name.startswith(PARTIAL) for name in run.names())
        remove_partial(run.config.run_dir)
        newest = run.checkpoints.files()[0]
        arrays, metadata = read_checkpoint(newest)
        assert metadata["step"] >= reached and (arrays["w"] == metadata["step"]).all()
        finished += metadata["step"] - reached
        reached = metadata["step"]
    assert Run(size=400_000).checkpoints.restore(START).step == reached
    # Kills between the new file's arrival and the old one's removal leave files, which the next save removes.
    assert newest.name in run.names() and all(name.startswith("ckpt_") for name in run.names())
    run.save(reached + 1)
    assert run.names() == [f"ckpt_{reached + 1:08d}.ckpt"]


def test_metrics_continue_after_the_checkpoint(tmp_path):
    log = RunLog(tmp_path)
    log.begin_metrics(0, 0)
    for step in (10, 20, 30):
        log.metrics(epoch=step // 10, step=step, top1=step / 3)
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 4, "st')  # killed
    whole = (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()
    RunLog(tmp_path).begin_metrics(20, 2)
    assert (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines() == whole[:2]
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [10, 20]
    assert json.loads(whole[0])["top1"] == 10 / 3


def test_early_stopping_counts_from_now_in_checkpoints_of_earlier_versions():
    metadata = TrainState(epoch=7, best_epoch=3).to_metadata()
    assert TrainState.from_metadata(metadata).best_epoch == 3
    del metadata["best_epoch"]
    assert TrainState.from_metadata(metadata).best_epoch == 7


def test_tensorboard_scalars_where_its_writer_is_installed(tmp_path):
    pytest.importorskip("tensorboardX")
    callbacks = Callbacks([TensorBoard(tmp_path)])
    callbacks.begin(TrainState())
    callbacks.end_step(9, Figures([0.5], 1.0, 1.0, 0), 0.1, {"running_loss": 0.5})
    callbacks.end_epoch({"top1": 50.0}, dict(epoch=1, step=10, top1=50.0, primary="top1"))
    callbacks.call("on_train_end")
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"top1" in events.read_bytes() and b"running_loss" in events.read_bytes()


def test_state_is_what_was_saved():
    run = Run()
    run.save(5)
    arrays, _ = read_checkpoint(run.checkpoints.files()[0])
    assert arrays.keys() == to_numpy(run.parameters[""]).keys() | {"optimizer.moment1.w"}


def test_the_state_of_an_earlier_version_is_read():
    old = dict(epoch=2, step=25, epoch_steps=10, batch_size=8, accumulation=1, world=2, seed=3, accuracy=80.0)
    old |= dict(best_accuracy=90.0, loss_sum=5.0, counted=5, skipped=1, skipped_in_a_row=0, config="...")
    state = TrainState.from_metadata(old)
    assert (state.world_size, state.score, state.best_score) == (2, 80.0, 90.0)
    assert state.mean_losses == [1.0]
    assert TrainState.from_metadata(state.to_metadata()) == state


def test_a_copy_of_a_checkpoint_is_not_the_runs_own():
    run = Run(KEEP_LAST=1)
    run.save(5)
    copies = ["ckpt_00000005_good.ckpt", "ckpt_5.ckpt", "ckpt_00000009.ckpt.ckpt", "my_ckpt_00000005.ckpt"]
    for name in copies:
        (run.config.run_dir / name).write_bytes(b"kept")
    run.save(10)
    assert run.names() == sorted([*copies, "ckpt_00000010.ckpt"])
    assert Run().checkpoints.restore(START).step == 10


def test_other_data_are_refused():
    Run().save(5)
    with pytest.raises(UserError, match="had 80 training samples, and there are 79 now: resume with the same data"):
        Run().checkpoints.restore(replace(START, samples=79))


def test_an_unreadable_checkpoint_is_not_a_damaged_one(monkeypatch):
    run = Run()
    for step in (5, 10):
        run.save(step)

    def refuse(path, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(UserError, match=r"can't read checkpoint .*ckpt_00000010.ckpt: Permission denied"):
        Run().checkpoints.restore(START)


def test_metrics_of_an_epoch_that_is_evaluated_again_are_dropped(tmp_path):
    log = RunLog(tmp_path)
    log.begin_metrics(0, 0)
    for step in (10, 20):
        log.metrics(epoch=step // 10, step=step, top1=1.0)
    RunLog(tmp_path).begin_metrics(20, 1)  # a checkpoint written before the second epoch's evaluation
    assert [record["epoch"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1]


def test_two_runs_do_not_share_a_folder(tmp_path):
    RunLog(tmp_path).lock()  # the log is gone, and the lock with it
    log = RunLog(tmp_path)
    log.lock()
    with pytest.raises(UserError, match=rf"in use by another run \(process {os.getpid()} on .*\): use another --tag"):
        RunLog(tmp_path).lock()
