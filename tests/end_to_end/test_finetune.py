"""The same model at another size: compile_time_property as it is, fine-tuned, and what is refused."""

import json

import pytest
from support.small_run import CONFIG, write_images

from msg_ms.checkpoint import read_checkpoint

TABLE = "relative_position_bias_table"
LARGER = ["--img-size", "48", "--window-size", "6"]
RATE = ["TRAIN.BASE_LR", "0.25", "TRAIN.MIN_LR", "0.25"]  # 2e-3 for a batch of 4


@pytest.fixture
def run(command, tmp_path):
    write_images(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG.replace("DROP_PATH_RATE: 0.3", "DROP_PATH_RATE: 0.0"), encoding="utf-8")

    def start(script, *flags, status=0):
        return command(script, "--cfg", "small.yaml", "--data-path", "data", *flags, status=status)

    return start


@pytest.mark.slow
def test_from_one_size_to_another(run, tmp_path):
    def records(tag):
        lines = (tmp_path / f"output/small/{tag}/metrics.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    run("train.py", "--tag", "at32", "--opts", "TRAIN.EPOCHS", "6", *RATE)
    trained = tmp_path / "output/small/at32/ckpt_00000018.ckpt"
    assert read_checkpoint(trained)[1]["classes"] == '["0", "1", "2"]'
    begun, learned = records("at32")[0], records("at32")[-1]
    assert learned["loss"] < 0.7 * begun["loss"]

    done = run("eval.py", "--resume", trained, *LARGER)
    assert f"{trained}: {TABLE} resampled from 49 to 121 positions, without training" in done.stderr
    untrained = float(done.stdout.split("loss ")[1].split()[0])
    done = run("train.py", "--tag", "at48", "--pretrained", trained, *LARGER, "--opts", "TRAIN.EPOCHS", "1", *RATE)
    assert f"{trained}: {TABLE} resampled from 49 to 121 positions" in done.stdout
    (tuned,) = records("at48")
    # Neither starts from scratch: the first run's first epoch, at the same rates, ends far above.
    assert tuned["loss"] < 0.8 * begun["loss"] and untrained < 0.8 * begun["loss"]
    assert tuned["train_loss"] < 0.8 * begun["train_loss"]
    table = read_checkpoint(tmp_path / "output/small/at48/best.ckpt")[0][f"layers.0.blocks.0.attn.{TABLE}"]
    assert table.shape == (121, 1)

    message = run("train.py", "--tag", "resumed", "--resume", trained, *LARGER, status=2).stderr
    assert f"{TABLE} is (49, 1), the model's is (121, 1)" in message
    assert (
        "--pretrained and another --tag start a run from weights of other classes, channels, windows or image sizes"
        in message
    )
