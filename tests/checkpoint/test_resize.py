"""Weights for other classes, windows and image sizes."""

import json

import numpy as np
import pytest
from support.reference import FIXTURES, SMALL

from msg_ms import MSGTransformer, UserError
from msg_ms.checkpoint import (
    ConversionError,
    adapt_weights,
    load_for_inference,
    load_pretrained,
    parameters_by_name,
    to_numpy,
    write_checkpoint,
)
from msg_ms.checkpoint.resize import is_adaptable

TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"


def test_bicubic_resampling_is_pytorchs():
    """7 x 7 offsets to 23 x 23 and back to 7 x 7, by torch.nn.functional.interpolate(mode="bicubic")."""
    with np.load(FIXTURES / "bias_resampling.npz") as file:
        small, large, shrunk = file["small"], file["large"], file["shrunk"]
    for value, reference in ((small, large), (large, shrunk)):
        adapted, lines = adapt_weights({TABLE: value}, {TABLE: reference.shape})
        assert np.abs(adapted[TABLE] - reference).max() < 5e-6  # of values up to 3
        assert lines == [f"relative_position_bias_table resampled from {len(value)} to {len(reference)} positions"]


def test_other_classes_windows_and_sizes(tmp_path):
    model = MSGTransformer(**SMALL, ape=True)
    write_checkpoint(tmp_path / "small.ckpt", to_numpy(parameters_by_name(model.get_parameters())), dict(step=3))
    larger = MSGTransformer(**{**SMALL, "img_size": 48, "window_size": 6, "num_classes": 5}, ape=True)
    head = larger.head.weight.asnumpy().copy()
    lines = load_pretrained(larger, tmp_path / "small.ckpt")
    assert lines == [
        "classification head re-initialised: 3 classes in the file, 5 in the model",
        "absolute_pos_embed resampled from 64 to 144 positions",
        "relative_position_bias_table resampled from 49 to 121 positions",
    ]
    assert (larger.head.weight.asnumpy() == head).all()
    unchanged = "layers.1.blocks.0.mlp.fc2.weight"
    loaded, stored = ({p.name: p.asnumpy() for p in m.get_parameters()} for m in (larger, model))
    assert (loaded[unchanged] == stored[unchanged]).all()
    # The mean of a position embedding hardly moves when its grid grows.
    assert np.abs(loaded["absolute_pos_embed"].mean() - stored["absolute_pos_embed"].mean()) < 1e-3


def test_inference_accepts_other_sizes_but_not_other_classes(tmp_path):
    model = MSGTransformer(**SMALL, ape=True)
    write_checkpoint(
        tmp_path / "small.ckpt", to_numpy(parameters_by_name(model.get_parameters())), dict(classes='["a", "b", "c"]')
    )
    larger = MSGTransformer(**{**SMALL, "img_size": 48, "window_size": 6}, ape=True)
    lines, metadata = load_for_inference(larger, tmp_path / "small.ckpt")
    assert [line.split(": ", 1)[1].split(",")[0] for line in lines] == [
        "absolute_pos_embed resampled from 64 to 144 positions",
        "relative_position_bias_table resampled from 49 to 121 positions",
    ]
    assert metadata == {"classes": '["a", "b", "c"]'}
    assert (larger.head.weight.asnumpy() == model.head.weight.asnumpy()).all()
    five = MSGTransformer(**{**SMALL, "num_classes": 5}, ape=True)
    with pytest.raises(
        UserError, match=r"head.weight is \(3, 32\), the model's is \(5, 32\).*; --pretrained and another"
    ):
        load_for_inference(five, tmp_path / "small.ckpt")


def test_weights_that_cannot_be_adapted_are_refused(tmp_path):
    model = MSGTransformer(**SMALL)
    write_checkpoint(tmp_path / "small.ckpt", to_numpy(parameters_by_name(model.get_parameters())))
    deeper = MSGTransformer(**{**SMALL, "depths": (1, 2)})
    with pytest.raises(
        UserError,
        match=r"small.ckpt does not fit this configuration: layers.1.blocks.1.norm1.gamma is missing; .* more",
    ):
        load_pretrained(deeper, tmp_path / "small.ckpt")
    name = "absolute_pos_embed"
    with pytest.raises(ConversionError, match="60 and 64 positions are not both square grids"):
        adapt_weights({name: np.zeros((1, 60, 8), np.float32)}, {name: (1, 64, 8)})
    # Neither two embeddings nor a scalar is adapted; the strict check of shapes refuses them.
    for value in (np.zeros((2, 16, 8), np.float32), np.zeros((), np.float32)):
        adapted, lines = adapt_weights({name: value, "head.bias": value}, {name: (1, 64, 8), "head.bias": value.shape})
        assert adapted[name] is value and adapted["head.bias"] is value and lines == []
    assert adapt_weights({"head.bias": value}, {"head.bias": (5,)})[0]["head.bias"] is value
    assert json.dumps(adapt_weights({}, {})) == "[{}, []]"


@pytest.mark.parametrize("prefix", ("", "backbone.", "detector.backbone."))
def test_names_in_a_larger_model_adapt_like_plain_ones(prefix):
    shapes = {
        "head.weight": ((3, 8), (5, 8)),
        "head.bias": ((3,), (5,)),
        "absolute_pos_embed": ((1, 16, 8), (1, 64, 8)),
        TABLE: ((49, 2), (121, 2)),
        "layers.0.blocks.0.attn.proj.weight": ((8, 8), (8, 8)),
        "overhead.weight": ((3, 8), (5, 8)),
        "head.extra": ((3,), (5,)),
    }
    arrays = {prefix + name: np.zeros(shape, np.float32) for name, (shape, _) in shapes.items()}
    adapted, lines = adapt_weights(arrays, {prefix + name: shape for name, (_, shape) in shapes.items()})
    assert {name.removeprefix(prefix): value.shape for name, value in adapted.items()} == {
        "absolute_pos_embed": (1, 64, 8),
        TABLE: (121, 2),
        "layers.0.blocks.0.attn.proj.weight": (8, 8),
        "overhead.weight": (3, 8),
        "head.extra": (3,),
    }
    assert lines == [
        "classification head re-initialised: 3 classes in the file, 5 in the model",
        "absolute_pos_embed resampled from 16 to 64 positions",
        "relative_position_bias_table resampled from 49 to 121 positions",
    ]
    assert [is_adaptable(name) for name in arrays] == [True, True, True, True, False, False, False]
    # A model without a head, and a head that must not change.
    assert adapt_weights(arrays, {})[1][0] == (
        "classification head ignored: 3 classes in the file, no head in the model"
    )
    assert f"{prefix}head.weight" in adapt_weights(arrays, {}, new_head=False)[0]
