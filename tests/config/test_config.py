"""The configuration: the paper's files and flags, errors that name key, value and remedy."""

import time
from pathlib import Path

import pytest

from msg_ms import UserError, list_models
from msg_ms.cli import config_parser
from msg_ms.config import KEYS, flat_items, load_config, schedule_warnings, to_yaml
from msg_ms.models.variants import VARIANTS

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_files_load_and_write_back_equal(file, tmp_path):
    config = load_config(file, DATA__DATA_PATH="x")
    assert config.model.name == file.stem
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("name", VARIANTS)
def test_files_describe_the_papers_models(name):
    config = load_config(CONFIGS / f"{name}_p4_win7_224.yaml")
    sizes = VARIANTS[name]
    assert (config.model.msg.embed_dim, config.model.msg.depths) == (sizes["embed_dim"], sizes["depths"])
    assert (config.model.msg.num_heads, config.model.drop_path_rate) == (
        sizes["num_heads"],
        sizes["drop_path_rate"],
    )
    assert name in list_models()


def test_a_file_of_the_papers_code_loads(tmp_path):
    (tmp_path / "msg.yaml").write_text(
        "MODEL:\n  TYPE: msg\n  NAME: x\n  MSG:\n    DEPTHS: [ 2, 4 ]\n    MANIP_TYPE: shuf\n"
        "DATA:\n  PIN_MEMORY: True\nTRAIN:\n  BASE_LR: 1e-6\n  OPTIMIZER:\n    BETAS: [0.9, 0.98]\nLOCAL_RANK: 0\n",
        encoding="utf-8",
    )
    config = load_config(tmp_path / "msg.yaml")
    assert config.model.msg.depths == (2, 4) and config.train.base_lr == 1e-6
    assert config.train.optimizer.betas == (0.9, 0.98) and config.train.epochs == 300


def test_base_options_and_flags_stand_above_each_other(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.yaml").write_text(
        "TRAIN: {EPOCHS: 1, WARMUP_EPOCHS: 1, MIN_LR: 1E-7}\nTAG: base", encoding="utf-8"
    )
    (tmp_path / "sub" / "child.yaml").write_text("BASE: ['../base.yaml']\nTRAIN: {EPOCHS: 2}", encoding="utf-8")
    config = load_config(tmp_path / "sub" / "child.yaml", ["DATA.BATCH_SIZE", "3", "TAG", "007"], DATA__BATCH_SIZE=5)
    assert (config.train.epochs, config.train.warmup_epochs, config.train.min_lr) == (2, 1, 1e-7)
    assert config.data.batch_size == 5 and config.tag == "007"
    assert str(config.run_dir) == f"output/{config.model.name}/007"
    # A dictionary's BASE is relative to the working directory, which is tmp_path here.
    config = load_config({"BASE": "sub/child.yaml", "TRAIN.EPOCHS": 3, "TAG": "own"})
    assert (config.train.epochs, config.train.warmup_epochs, config.tag) == (3, 1, "own")
    for base, message in (("gone.yaml", "can't read the configuration gone.yaml"), (5, "BASE=5: must be a file or")):
        with pytest.raises(UserError, match=message):
            load_config({"BASE": base})


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TRAIN.BSE_LR", "1"], r"--opts: key TRAIN.BSE_LR does not exist; did you mean 'TRAIN.BASE_LR'\?"),
        (["TRAIN", "1"], r"TRAIN is a section"),
        (["DATA.BATCH_SIZE", "1.5"], r"DATA.BATCH_SIZE=1.5: must be a whole number"),
        (["DATA.BATCH_SIZE", "0"], r"DATA.BATCH_SIZE=0: must be at least 1"),
        (["DATA.BATCH_SIZE", "True"], r"DATA.BATCH_SIZE=True: must be a whole number"),
        (["TRAIN.BASE_LR", "fast"], r"TRAIN.BASE_LR='fast': must be a finite number"),
        (["TRAIN.BASE_LR", ".nan"], r"must be a finite number"),
        (["MODEL.MSG.DEPTHS", "3"], r"MODEL.MSG.DEPTHS=3: must be a list"),
        (["MODEL.DROP_PATH_RATE", "1"], r"must be at least 0 and below 1"),
        (["AUG.MIXUP_MODE", "row"], r"AUG.MIXUP_MODE='row': must be one of 'batch', 'pair', 'elem'"),
        (["MODEL.NAME", "a/b"], r"must be a name without '/'"),
        (["TAG"], r"'TAG' has no value"),
        (["TRAIN.EPOCHS", "[1"], r"can't be read as a value"),
    ],
)
def test_wrong_options_are_named(opts, message):
    with pytest.raises(UserError, match=message):
        load_config(None, opts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "MODEL: {MGS: {DEPTHS: [1]}}",
            r"bad.yaml: section MODEL.MGS does not exist; did you mean 'MODEL.MSG'\?",
        ),
        (
            "MODEL: {NUM_CLASES: 3}",
            r"bad.yaml: key MODEL.NUM_CLASES does not exist; did you mean 'MODEL.NUM_CLASSES'\?",
        ),
        ("MODEL: 3", r"MODEL is a section"),
        ("- 1", r"expected keys with values"),
        ("A: [", r"bad.yaml: not valid YAML"),
        ("BASE: bad.yaml", r"BASE refers back to this file"),
        ("BASE: gone.yaml", r"can't read the configuration .*gone.yaml"),
        ("TRAIN: {EPOCHS: many}", r"bad.yaml: TRAIN.EPOCHS='many': must be a whole number"),
    ],
)
def test_wrong_files_are_named(text, message, tmp_path):
    (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TRAIN: {EPOCHS: 300}\nTAG: a\nTRAIN: {EPOCHS: 1}", r"line 3: TRAIN appears twice, first in line 1"),
        ("TRAIN:\n  EPOCHS: 1\n  EPOCHS: 300", r"line 3: EPOCHS appears twice, first in line 2"),
        ("TAG: a\nTAG: a", r"line 2: TAG appears twice, first in line 1"),
        ("MODEL: {NAME: a}\nMODEL.NAME: b", r"line 2: MODEL.NAME appears twice, first in line 1"),
        ("BASE: a.yaml\nBASE: b.yaml", r"line 2: BASE appears twice"),
        ("BASE: {a: 1}", r"section BASE does not exist"),
        ("BASE: [[a]]", r"BASE=\['a'\]: must be a file or a list of files"),
        ("[a]: 1", r"line 1: a key must be a name"),
        ("TAG: {a: 1}", r"TAG is a key, not a section"),
        ("TAG: null", r"TAG=None: must be text"),
        ("TAG: 'a\0b'", r"not valid YAML"),
        ("X: {}", r"key X does not exist"),
        ("TAG: &a [*a]", r"bad.yaml: a value contains itself"),
        ("TRAIN: &a {<<: *a}", r"bad.yaml: a value contains itself"),
        ("<<: 3", r"line 1: << needs a section"),
    ],
)
def test_no_key_is_read_twice_or_by_chance(text, message, tmp_path):
    (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "bad.yaml")


def test_references_merge_sections(tmp_path):
    (tmp_path / "a.yaml").write_text("TRAIN: &t {EPOCHS: 2, MIN_LR: 1e-7}\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text(
        "BASE: a.yaml\nDATA: {<<: &d {IMG_SIZE: 32}, BATCH_SIZE: 3}\nMODEL:\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"MODEL is a section; expected keys below it, found None"):
        load_config(tmp_path / "b.yaml")
    (tmp_path / "b.yaml").write_text(
        "BASE: [a.yaml, '']\nDATA: {<<: &d {IMG_SIZE: 32}, BATCH_SIZE: 3}\nMODEL: {}\n", encoding="utf-8"
    )
    config = load_config(tmp_path / "b.yaml")
    assert (config.train.epochs, config.data.img_size, config.data.batch_size) == (2, 32, 3)


def test_many_levels_and_references_end_at_once(tmp_path):
    bomb = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    for text in ("[" * 100_000, "- " * 10_000, "{a: " * 10_000, bomb):
        (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
        start = time.process_time()
        with pytest.raises(UserError):
            load_config(tmp_path / "bad.yaml")
        assert time.process_time() - start < 3


def test_home_folders_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "c.yaml").write_text("DATA: {DATA_PATH: ~/set}\nOUTPUT: '~/out'\nTAG: ~x\n", encoding="utf-8")
    config = load_config(tmp_path / "c.yaml", ["COMPILE_CACHE", "~"], MODEL__RESUME="~/x.ckpt")
    assert (config.data.data_path, config.output, config.tag) == ("/home/me/set", "/home/me/out", "~x")
    assert (config.compile_cache, config.model.resume) == ("/home/me", "/home/me/x.ckpt")
    with pytest.raises(UserError, match=r"OUTPUT=~nobody-here/x: there is no home folder ~nobody-here"):
        load_config(None, OUTPUT="~nobody-here/x")


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["AUG.CUTMIX_MINMAX", "[0.8,0.2]"], r"AUG.CUTMIX_MINMAX=\[0.8, 0.2\]: must be None, or two numbers"),
        (["AUG.CUTMIX_MINMAX", "[0.5,0.5]"], r"must be None, or two numbers with 0 <= first < second <= 1"),
        (["AUG.CUTMIX_MINMAX", "[0.2,0.21]", "DATA.IMG_SIZE", "32"], r"both are 6 pixels of DATA.IMG_SIZE=32"),
        (["AUG.CROP_SCALE", "[0.5,1.5]"], r"two numbers with 0 < first <= second <= 1"),
        (["TRAIN.START_EPOCH", "2", "TRAIN.EPOCHS", "2"], r"TRAIN.START_EPOCH=2: must be below TRAIN.EPOCHS=2"),
        (["TRAIN.LR_SCHEDULER.NAME", "multistep"], r"needs TRAIN.LR_SCHEDULER.MILESTONES"),
        (["MODEL.MSG.EMBED_DIM", "3", "MODEL.MSG.MLP_RATIO", "0.1"], r"no channel is left"),
        (["TRAIN.BASE_LR", "1e39"], r"must be a finite number in single precision"),
        (["TRAIN.OPTIMIZER.EPS", "1e-50"], r"must be a finite number in single precision"),
        (["TRAIN.OPTIMIZER.BETAS", "[0.9,0.99999999999]"], r"must be two numbers in \[0, 1\)"),
        (["SEED", "4294967296"], r"must be a whole number, at most 2147483647"),
        (["AUG.AUTO_AUGMENT", "rand-n999999999"], r"with numbers below 1000"),
        (["TAG", "a" * 201], r"at most 200 bytes"),
        (["TAG", "a\nb"], r"a name without '/' and control characters"),
    ],
)
def test_values_that_make_no_sense_are_refused(opts, message):
    with pytest.raises(UserError, match=message):
        load_config(None, opts)


@pytest.mark.parametrize(
    ("opts", "line"),
    [
        (
            ["WARMUP_EPOCHS", "5"],
            "TRAIN.WARMUP_EPOCHS=5 is not below TRAIN.EPOCHS=5: TRAIN.BASE_LR=0.0005 is never reached",
        ),
        (["WARMUP_STEPS", "50"], "TRAIN.WARMUP_STEPS=50 is not below the 50 steps of the run"),
        (["LR_SCHEDULER.NAME", "multistep", "TRAIN.LR_SCHEDULER.MILESTONES", "[3, 7]"], "MILESTONES=[7] are not below"),
        (["LR_SCHEDULER.NAME", "step"], "TRAIN.LR_SCHEDULER.DECAY_EPOCHS=30 is not below TRAIN.EPOCHS=5"),
        (["MIN_LR", "1e-2"], "TRAIN.MIN_LR=0.01 is above TRAIN.BASE_LR=0.0005"),
        (["WARMUP_LR", "1e-2"], "TRAIN.WARMUP_LR=0.01 is above TRAIN.BASE_LR=0.0005"),
    ],
)
def test_schedules_that_a_run_does_not_reach_are_reported(opts, line):
    config = load_config(None, ["TRAIN.EPOCHS", "5", "TRAIN.WARMUP_EPOCHS", "1", f"TRAIN.{opts[0]}", *opts[1:]])
    (warning,) = schedule_warnings(config.train, steps_per_epoch=10)
    assert warning.startswith("warning: ") and line in warning
    assert not list(schedule_warnings(load_config(None).train, 10))


def test_options_given_twice_all_count():
    args = config_parser("").parse_args(["--cfg", "x", "--opts", "TAG", "a", "--opts", "SEED", "3"])
    assert args.opts == ["TAG", "a", "SEED", "3"] and config_parser("").parse_args(["--cfg", "x"]).opts == []


def test_every_key_is_listed_once():
    assert len(KEYS) == len(set(KEYS)) == len(dict(flat_items(load_config(None))))
