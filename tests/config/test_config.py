"""The configuration: the paper's files and flags, errors that name key, value and remedy."""

from pathlib import Path

import pytest

from msg_ms import UserError, list_models
from msg_ms.config import KEYS, flat_items, load_config, to_yaml
from msg_ms.models.variants import VARIANTS

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_files_load_and_write_back_equal(file, tmp_path):
    config = load_config(file, DATA__DATA_PATH="x")
    assert config.model.name == file.stem
    (tmp_path / "config.yaml").write_text(to_yaml(config))
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
        "DATA:\n  PIN_MEMORY: True\nTRAIN:\n  BASE_LR: 1e-6\n  OPTIMIZER:\n    BETAS: [0.9, 0.98]\nLOCAL_RANK: 0\n"
    )
    config = load_config(tmp_path / "msg.yaml")
    assert config.model.msg.depths == (2, 4) and config.train.base_lr == 1e-6
    assert config.train.optimizer.betas == (0.9, 0.98) and config.train.epochs == 300


def test_base_options_and_flags_stand_above_each_other(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.yaml").write_text("TRAIN: {EPOCHS: 1, WARMUP_EPOCHS: 1, MIN_LR: 1E-7}\nTAG: base")
    (tmp_path / "sub" / "child.yaml").write_text("BASE: ['../base.yaml']\nTRAIN: {EPOCHS: 2}")
    config = load_config(tmp_path / "sub" / "child.yaml", ["DATA.BATCH_SIZE", "3", "TAG", "007"], DATA__BATCH_SIZE=5)
    assert (config.train.epochs, config.train.warmup_epochs, config.train.min_lr) == (2, 1, 1e-7)
    assert config.data.batch_size == 5 and config.tag == "007"
    assert str(config.run_dir) == f"output/{config.model.name}/007"


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
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "bad.yaml")


def test_every_key_is_listed_once():
    assert len(KEYS) == len(set(KEYS)) == len(dict(flat_items(load_config(None))))
