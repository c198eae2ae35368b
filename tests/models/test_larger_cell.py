"""A backbone inside a larger Cell: weight decay, precision, pretrained weights and packing with prefixed names."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from support.noisy_model import noisy
from support.reference import SMALL

from msg_ms import MSGFeatures, MSGTransformer, UserError, ops, optimize_for_inference
from msg_ms.checkpoint import load_pretrained, parameters_by_name, to_numpy, write_checkpoint
from msg_ms.models.decay import has_weight_decay
from msg_ms.models.layers import Linear
from msg_ms.models.precision import set_precision

# Large enough for Strassen's algorithm, with an even number of tokens per window.
LARGE = dict(img_size=56, embed_dim=128, depths=(1,), num_heads=(2,), window_size=7, shuffle_size=(2,), num_classes=5)


class Detector(nn.Cell):
    """The mean of the last map through a head of its own: images -> (map, logits)."""

    def __init__(self, **arguments):
        super().__init__()
        self.backbone = MSGFeatures(**arguments)
        self.head = Linear(self.backbone.out_channels[-1], 4, output_float32=True)

    def construct(self, images):
        last = self.backbone(images)[-1]
        return last, self.head(last.mean((2, 3)))


def images(side: int) -> Tensor:
    return Tensor(np.random.RandomState(1).standard_normal((2, 3, side, side)).astype(np.float32))


def test_decay_groups_are_those_of_the_backbone_alone():
    alone, detector = MSGFeatures(**SMALL, ape=True), Detector(**SMALL, ape=True)
    decayed = {f"backbone.{p.name}" for p in alone.trainable_params() if has_weight_decay(p)}
    assert {p.name for p in detector.trainable_params() if has_weight_decay(p)} == decayed | {"head.weight"}
    excluded = {"absolute_pos_embed"} | {
        f"layers.{i}.blocks.0.attn.{name}" for i in (0, 1) for name in ("relative_position_bias_table", "rel_pos_msg")
    }
    assert detector.backbone.no_weight_decay() == {f"backbone.{name}" for name in excluded}


@pytest.mark.parametrize(("level", "dtype"), [("O1", ms.float32), ("O2", ms.float16)])
def test_precision_reaches_the_backbone_and_the_head_returns_float32(level, dtype):
    detector = noisy(Detector(**SMALL)).set_train(False)
    _, single = detector(images(32))
    set_precision(detector, level)
    detector.compile_cache.clear()
    last, logits = detector(images(32))
    assert last.dtype == dtype and logits.dtype == ms.float32
    assert 0 < np.abs(logits.asnumpy() - single.asnumpy()).max() < 2e-2 * np.abs(single.asnumpy()).max()


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_classifiers_weights_load_into_the_backbone(tmp_path, prefix):
    weights = to_numpy(parameters_by_name(noisy(MSGTransformer(**SMALL)).get_parameters()))
    write_checkpoint(tmp_path / "classifier.ckpt", {prefix + name: value for name, value in weights.items()})
    detector = Detector(**SMALL)
    head = detector.head.weight.asnumpy().copy()
    assert load_pretrained(detector.backbone, tmp_path / "classifier.ckpt", prefix="backbone.") == []
    found = to_numpy(parameters_by_name(detector.get_parameters()))
    backbone = {name for name in found if name.startswith("backbone.")}
    assert len(backbone) == len(weights) - 4  # without the classifier's norm and head
    assert all((found[name] == weights[name.removeprefix("backbone.")]).all() for name in backbone)
    assert (found["head.weight"] == head).all()


@pytest.mark.parametrize("strassen", [False, True])
def test_packing_keeps_results_and_prefixes(strassen):
    with ops.use_backend("native"):
        detector = noisy(Detector(**LARGE)).set_train(False)
    before = [y.asnumpy() for y in detector(images(56))]
    names = {p.name for p in detector.get_parameters()}
    assert optimize_for_inference(detector, strassen=strassen) is detector
    packed = [p.name for p in detector.get_parameters()]
    assert len(packed) == len(set(packed)) and all(name.startswith(("backbone.", "head.")) for name in packed)
    assert {"head.weight", "head.bias", "backbone.msg_tokens", "backbone.patch_embed.norm.gamma"} <= names & {*packed}
    assert "backbone.layers.0.blocks.0.packed.0" in packed and not any("qkv" in name for name in packed)
    # The detector's own graph was compiled from the old blocks; Strassen's rounding shows that a new one runs.
    after = [y.asnumpy() for y in detector(images(56))]
    for a, b in zip(before, after, strict=True):
        difference = np.abs(a - b).max() / np.abs(a).max()
        assert 0 < difference <= 1e-5 if strassen else difference == 0


def test_two_backbones_are_packed_and_none_is_an_error():
    with ops.use_backend("native"):
        pair = nn.CellList([MSGFeatures(**SMALL), MSGTransformer(**SMALL)])
    optimize_for_inference(pair)
    names = [p.name for p in pair.get_parameters()]
    assert len(names) == len(set(names)) and {name.split(".")[0] for name in names} == {"0", "1"}
    assert {"0.layers.1.blocks.0.packed.0", "1.layers.1.blocks.0.packed.0", "1.head.weight"} < {*names}
    with pytest.raises(UserError, match="Dense contains no MSG-Transformer"):
        optimize_for_inference(nn.Dense(2, 3))
