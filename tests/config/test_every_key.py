"""Every key: what is loaded is written and read back equal; what is accepted trains a step or is refused in a line."""

import random
import typing
from pathlib import Path

import numpy as np
import pytest
import yaml
from fuzz.config import TEXTS, WORDS, fuzz, random_text
from support.small_run import CONFIG, write_images

from msg_ms import UserError
from msg_ms.config import KEYS, flat_items, load_config, schedule_warnings, to_yaml
from msg_ms.config.load import PATHS
from msg_ms.data import Shard
from msg_ms.data.pipeline import arrays_of
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.schedule import build_schedule
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, build_step
from msg_ms.tasks import build_task

DEFAULTS = dict(flat_items(load_config(None)))


def tree(key: str, value: object) -> dict:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def values(key: str, count: int, seed: int = 0) -> list[str]:
    """Return texts for a key: odd ones, and ones near its default."""
    draws, default = random.Random(f"{key} {seed}"), DEFAULTS[key]
    texts = [random_text(draws) for _ in range(count)]
    if isinstance(default, float):
        texts += [repr(default * 10 ** draws.uniform(-9, 9)) for _ in range(count)]
    elif isinstance(default, tuple) or key == "AUG.CUTMIX_MINMAX":
        texts += [
            str([draws.choice((0.1, 0.2, 0.5, 1, 2, 3)) for _ in range(draws.randrange(4))]) for _ in range(count)
        ]
    elif isinstance(default, bool):
        texts += ["True", "False"]
    elif isinstance(default, str):
        texts += draws.sample(WORDS, min(2 * count, len(WORDS)))
    elif isinstance(default, int):
        texts += [str(draws.choice((draws.randrange(9), draws.randrange(10**6)))) for _ in range(count)]
    return texts


@pytest.mark.parametrize("key", KEYS)
def test_what_is_written_is_read_back(key, tmp_path):
    default = DEFAULTS[key]
    default = default if isinstance(default, str) else str(list(default) if isinstance(default, tuple) else default)
    texts = [default, *(TEXTS if key == "TAG" else TEXTS[::6]), *values(key, 3)]
    loaded = {}
    for text in texts:
        try:
            loaded[text] = load_config(None, [key, text])
        except UserError as error:
            assert len(str(error)) < 700
    for text, config in {repr(config): (text, config) for text, config in loaded.items()}.values():
        (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        assert load_config(tmp_path / "config.yaml") == config, text
        if isinstance(DEFAULTS[key], str):
            value = dict(flat_items(config))[key]
            assert value == text or key in PATHS, text
            section = yaml.safe_load(to_yaml(config))  # other programs read YAML 1.1
            for part in key.split("."):
                section = section[part]
            assert section == value
    assert loaded


@pytest.mark.parametrize("text", ["1e-3", "007", "yes", "2026-11-26", "1:30", "0x10", "1_000", ".inf", "True"])
def test_text_without_quotes_stays_as_it_is_written(text, tmp_path):
    (tmp_path / "config.yaml").write_text(f"TAG: {text}\nMODEL: {{NAME: {text}}}", encoding="utf-8")
    config = load_config(tmp_path / "config.yaml")
    assert config.tag == config.model.name == text


def test_numbers_are_those_of_yaml_1_2(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "SEED: 010\nTRAIN: {EPOCHS: 0x10, BASE_LR: 1e-3, MIN_LR: 2}\nPRINT_FREQ: 1_000", encoding="utf-8"
    )
    config = load_config(tmp_path / "config.yaml")
    assert (config.seed, config.train.epochs, config.train.base_lr, config.train.min_lr) == (10, 16, 1e-3, 2.0)
    assert config.print_freq == 1000
    with pytest.raises(UserError, match=r"TRAIN.EPOCHS='1:30': must be a whole number"):  # 90 in YAML 1.1
        load_config(None, ["TRAIN.EPOCHS", "1:30"])


def test_the_fuzz_script_finds_nothing(tmp_path):
    counts, failures = fuzz(seed=1, seconds=3, folder=tmp_path)
    assert not failures, failures[0]
    assert {end for _, end in counts} == {"loaded", "refused"}


class Bench:
    """Trains single steps; the step is compiled again only where the graph changes."""

    def __init__(self):
        write_images(Path())
        Path("small.yaml").write_text(CONFIG, encoding="utf-8")
        self.steps = {}

    def train(self, options: list[str]) -> None:
        """Train one step as the options say, or raise the UserError that train.py would end with."""
        config = load_config("small.yaml", [*options], DATA__DATA_PATH="data")
        task = build_task(config)
        data = task.train_data(Shard(), 1)
        list(schedule_warnings(config.train, data.steps))
        schedule = build_schedule(config.train, data.steps, config.data.batch_size)
        assert all(np.isfinite(schedule.at_step(step)) for step in (0, 1, data.steps, config.train.epochs * data.steps))
        batches = data.batches(0, 1)
        group = [next(batches) for _ in range(data.order.accumulation)]
        assert all(np.isfinite(array).all() for batch in group for array in arrays_of(batch))
        losses, norm = self.step(config, task, data).run(group, schedule.at_step(0))
        assert len(losses) == 1 and isinstance(norm, float)

    def step(self, config, task, data):
        train = config.train
        graph = str(
            (config.model, config.amp, train.optimizer, train.weight_decay, train.clip_grad, train.use_checkpoint)
        )
        key = graph, str(data.signatures), data.order.accumulation
        if key not in self.steps:
            model = task.build_model()
            optimizer = build_optimizer(train, model.trainable_params())
            gradients = LossAndGradients(task.loss_cell(model), optimizer.targets)
            step = OptimizerStep(optimizer, train.clip_grad)
            self.steps[key] = build_step(gradients, step, data.order.accumulation)
        return self.steps[key]


# Keys whose values are part of the compiled graphs, which take seconds each.
GRAPH = (
    "MODEL.",
    "TRAIN.OPTIMIZER",
    "TRAIN.WEIGHT_DECAY",
    "TRAIN.CLIP_GRAD",
    "TRAIN.USE_CHECKPOINT",
    "AMP",
    "DATA.IMG_SIZE",
)
QUICK = [
    key
    for key in KEYS
    if not key.startswith((*GRAPH, "TRAIN.ACCUMULATION", "DATA.BATCH_SIZE", "EVAL_MODE", "THROUGHPUT"))
    and key not in PATHS
]


def try_keys(keys: typing.Iterable[str], count: int, seed: int) -> tuple[int, int]:
    """Train with values of the keys; return how many trained and how many were refused."""
    bench, trained, refused = Bench(), 0, 0
    for key in keys:
        for text in values(key, count, seed):
            options = ["AUG.MIXUP", "0.8"] if key in ("AUG.CUTMIX_MINMAX", "AUG.MIXUP_PROB") else []
            try:
                bench.train([*options, key, text])
                trained += 1
            except UserError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"{key}={text[:200]!r}") from error
    return trained, refused


@pytest.mark.slow
def test_accepted_values_train_a_step():
    trained, refused = try_keys(random.Random(0).sample(QUICK, 12), 3, seed=0)
    assert trained > 5 and refused > 5


@pytest.mark.slow
def test_accepted_values_of_all_keys_train_a_step():
    trained, refused = try_keys(QUICK, 25, seed=1)
    assert trained > 300 and refused > 300


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted(set(KEYS) - set(QUICK) - PATHS - {"EVAL_MODE", "THROUGHPUT_MODE"}))
def test_accepted_values_of_the_model_train_a_step(key):
    try_keys([key], 3, seed=2)
