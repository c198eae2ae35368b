"""Weights for other classes, windows and image sizes."""

import json

import numpy as np
import pytest
from support.reference import FIXTURES, SMALL

from msg_ms import MSGTransformer, UserError
from msg_ms.checkpoint import load_for_inference, load_pretrained, parameters_by_name, to_numpy, write_checkpoint
from msg_ms.convert import ConversionError, adapt_weights


def test_bicubic_resampling_is_pytorchs():
    """7 x 7 offsets to 23 x 23 and back to 7 x 7, by torch.nn.functional.interpolate(mode="bicubic")."""
    with np.load(FIXTURES / "bias_resampling.npz") as file:
        small, large, shrunk = file["small"], file["large"], file["shrunk"]
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    for value, wanted in ((small, large), (large, shrunk)):
        found, lines = adapt_weights({name: value}, {name: wanted.shape})
        assert np.abs(found[name] - wanted).max() < 5e-6  # of values up to 3
        assert lines == [f"relative_position_bias_table resampled from {len(value)} to {len(wanted)} positions"]


def test_other_classes_windows_and_sizes(tmp_path):
    model = MSGTransformer(**SMALL, ape=True)
    write_checkpoint(tmp_path / "small.ckpt", to_numpy(parameters_by_name(model.get_parameters())), dict(step=3))
    larger = MSGTransformer(**{**SMALL, "img_size": 48, "window_size": 6, "num_classes": 5}, ape=True)
    head = larger.head.weight.asnumpy().copy()
    lines = load_pretrained(larger, tmp_path / "small.ckpt")
    assert lines == [
        "the head begins anew: 3 classes in the file, 5 here",
        "absolute_pos_embed resampled from 64 to 144 positions",
        "relative_position_bias_table resampled from 49 to 121 positions",
    ]
    assert (larger.head.weight.asnumpy() == head).all()
    same = "layers.1.blocks.0.mlp.fc2.weight"
    own, theirs = ({p.name: p.asnumpy() for p in m.get_parameters()} for m in (larger, model))
    assert (own[same] == theirs[same]).all()
    # The mean of a position embedding hardly moves when its grid grows.
    assert np.abs(own["absolute_pos_embed"].mean() - theirs["absolute_pos_embed"].mean()) < 1e-3


def test_inference_takes_other_sizes_but_no_other_classes(tmp_path):
    model = MSGTransformer(**SMALL, ape=True)
    write_checkpoint(
        tmp_path / "small.ckpt", to_numpy(parameters_by_name(model.get_parameters())), dict(classes='["a", "b", "c"]')
    )
    larger = MSGTransformer(**{**SMALL, "img_size": 48, "window_size": 6}, ape=True)
    lines, notes = load_for_inference(larger, tmp_path / "small.ckpt")
    assert [line.split(": ", 1)[1].split(",")[0] for line in lines] == [
        "absolute_pos_embed resampled from 64 to 144 positions",
        "relative_position_bias_table resampled from 49 to 121 positions",
    ]
    assert notes == {"classes": '["a", "b", "c"]'}
    assert (larger.head.weight.asnumpy() == model.head.weight.asnumpy()).all()
    five = MSGTransformer(**{**SMALL, "num_classes": 5}, ape=True)
    with pytest.raises(
        UserError, match=r"head.weight is \(3, 32\), the model's is \(5, 32\).*; --pretrained and another"
    ):
        load_for_inference(five, tmp_path / "small.ckpt")


def test_what_cannot_be_adapted_is_refused(tmp_path):
    model = MSGTransformer(**SMALL)
    write_checkpoint(tmp_path / "small.ckpt", to_numpy(parameters_by_name(model.get_parameters())))
    deeper = MSGTransformer(**{**SMALL, "depths": (1, 2)})
    with pytest.raises(UserError, match=r"small.ckpt doesn't fit this configuration: it lacks layers.1.blocks.1"):
        load_pretrained(deeper, tmp_path / "small.ckpt")
    name = "absolute_pos_embed"
    with pytest.raises(ConversionError, match="60 and 64 positions are not both square grids"):
        adapt_weights({name: np.zeros((1, 60, 8), np.float32)}, {name: (1, 64, 8)})
    assert json.dumps(adapt_weights({}, {})) == "[{}, []]"
