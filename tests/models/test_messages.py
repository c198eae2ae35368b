"""The attention of the MSG tokens: compared with NumPy, and on images with a mark."""

import numpy as np
import pytest
from mindspore import Tensor
from support.reference import SMALL

from msg_ms import MSGTransformer
from msg_ms.models.attention import position_bias_index
from msg_ms.models.messages import MessageAttention, attention_maps
from msg_ms.ops import backend

DEPTHS = {**SMALL, "depths": (2, 1)}


def by_numpy(block, x):
    """Return the MSG token's softmax row, the mean over heads in float64, from the block's parameters and input."""
    values = {p.name.split("blocks.")[1].split(".", 1)[1]: p.asnumpy().astype(float) for p in block.get_parameters()}
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    y = y * values["norm1.gamma"] + values["norm1.beta"]
    qkv = y @ values["attn.qkv.weight"].T + values["attn.qkv.bias"]
    table = values["attn.relative_position_bias_table"]
    rows = np.concatenate([table, values["attn.rel_pos_msg"][:, :, 0, 0].T])
    channels, heads = x.shape[-1], table.shape[1]
    total, width = 0, channels // heads
    for head in range(heads):
        q = qkv[..., 0, head * width : (head + 1) * width]
        k = qkv[..., channels + head * width : channels + (head + 1) * width]
        scores = np.einsum("rgc,rgnc->rgn", q, k) / np.sqrt(width) + rows[position_bias_index(4)[0], head]
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        total = total + scores / scores.sum(-1, keepdims=True)
    return total / heads


@pytest.mark.parametrize("choice", ["native", pytest.param("composed", marks=pytest.mark.slow)])
def test_weights_are_the_msg_tokens_softmax_rows(choice, monkeypatch):
    monkeypatch.setattr(backend, "_chosen", choice)
    model = MSGTransformer(**DEPTHS).set_train(False)
    draws = np.random.RandomState(0)
    for parameter in model.get_parameters():
        noise = draws.standard_normal(parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(parameter.asnumpy() + 0.3 * noise))
    x = Tensor(draws.standard_normal((2, 3, 32, 64)).astype(np.float32))
    logits, weights = MessageAttention(model)(x)
    if choice == "native":  # saves a compilation
        assert np.abs(logits.asnumpy() - model(x).asnumpy()).max() < 1e-5
    assert [w.shape for w in weights] == [(2 * 2, 4, 17), (2 * 2, 1, 17)]
    first = model.layers[0].blocks[0](model.embed(x, (8, 16, 2)))
    inputs = (first, model.forward_stages(x)[0])
    for stage, rows, tokens in zip(model.layers, weights, inputs, strict=True):
        rows = rows.asnumpy()
        assert np.abs(rows.sum(-1) - 1).max() < 1e-6
        assert np.abs(rows - by_numpy(stage.blocks[-1], tokens.asnumpy().astype(float))).max() < 1e-5
        assert rows.max() > 0.2  # far from uniform, so that the comparison is meaningful


def test_msg_tokens_attend_to_a_mark_in_their_window():
    model = MSGTransformer(**SMALL).set_train(False)
    own = {p.name: np.zeros(p.shape, np.float32) for p in model.get_parameters()}
    for name in own:
        own[name] += name.endswith("gamma")
    own["patch_embed.proj.weight"][0, :, 3, 3] = 1  # channel 0 sees pixel (4y + 1, 4x + 1) of token (y, x)
    own["layers.0.blocks.0.attn.qkv.bias"][:16] = 1
    own["layers.0.blocks.0.attn.qkv.weight"][16:32, 0] = 5  # the keys of marked tokens match every query
    for parameter in model.get_parameters():
        parameter.set_data(Tensor(own[parameter.name]))
    marks = [(0, 1, 9), (0, 6, 2), (1, 5, 14), (1, 3, 4)]  # image, row and column of tokens of an 8 x 16 map
    pixels = np.zeros((2, 3, 32, 64), np.float32)
    for image, y, x in marks:
        pixels[image, :, 4 * y + 1, 4 * x + 1] = 1
    _, weights = MessageAttention(model)(Tensor(pixels))
    maps = attention_maps(weights[0].asnumpy(), (8, 16, 2), 4)
    assert maps.shape == (2, 8, 16)
    for image, y, x in marks:
        assert maps[image, y, x] > 0.99
    assert (maps > 0.5).sum() == len(marks)
    unmarked = maps[0, 4:, 12:]  # a window without a mark: uniform over 16 tokens and itself
    assert np.abs(unmarked - 1 / 17).max() < 1e-6
