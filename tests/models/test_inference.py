"""Models optimized for inference: the same results as before, and errors for uses that need the original parameters."""

from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor
from support.noisy_model import SMALL, noisy

from msg_ms import MSGFeatures, MSGTransformer, UserError, ops, optimize_for_inference
from msg_ms.deploy.check import Reference
from msg_ms.deploy.files import export_mindir
from msg_ms.models.messages import MessageAttention
from msg_ms.models.precision import set_precision


@pytest.mark.parametrize(
    "change",
    (
        {},
        # Windows of 7, heads of 12 channels, no shuffle, no bias of qkv, images that are not square.
        {"img_size": (28, 56), "window_size": 7, "num_heads": (2, 4), "embed_dim": 24, "manip_type": "none",
         "qkv_bias": False, "shuffle_size": (1, 1), "depths": (2,)},
    ),
)  # fmt: skip
def test_the_result_is_the_same(change):
    arguments = {**SMALL, **change}
    depths = arguments["depths"]
    arguments = {**arguments, "num_heads": arguments["num_heads"][: len(depths)]}
    arguments["shuffle_size"] = arguments["shuffle_size"][: len(depths)]
    with ops.use_backend("native"):
        model = noisy(MSGTransformer(**arguments)).set_train(False)
    height, width = model.img_size
    images = Tensor(np.random.RandomState(1).standard_normal((3, 3, height, width)).astype(np.float32))
    before = model(images).asnumpy()
    assert optimize_for_inference(model) is model
    names = [parameter.name for parameter in model.get_parameters()]
    assert len(names) == len(set(names)) and not any("qkv" in name for name in names)
    after = model(images).asnumpy()
    assert np.array_equal(after, before) and np.abs(before).max() > 0.1


@pytest.fixture(scope="module")
def large():
    """A model large enough for Strassen's algorithm, images, its logits before, and the size of its weights before."""
    arguments = dict(embed_dim=128, num_heads=(2,), window_size=7, shuffle_size=(2,), depths=(2,), img_size=56)
    with ops.use_backend("native"):
        model = noisy(MSGTransformer(**SMALL | arguments)).set_train(False)
    images = np.random.RandomState(1).standard_normal((3, 3, 56, 56)).astype(np.float32)
    before, size = model(Tensor(images)).asnumpy(), packed_size(model)
    return optimize_for_inference(model, strassen=True), images, before, size


def packed_size(model):
    return sum(p.size for p in model.get_parameters() if p.name.startswith("layers") and p.size >= 128**2)


def test_strassens_algorithm_differs_by_rounding(large):
    model, images, before, size = large
    after = model(Tensor(images)).asnumpy()
    assert 0 < np.abs(after - before).max() <= 1e-5 * np.abs(before).max()
    vectors, position_bias = 9 * 128 + 4 * 128, 2 * 50 * 64  # of a block; 50 columns are padded to 64
    assert packed_size(model) == 7 / 4 * size + 2 * (vectors + position_bias)


def test_infinity_in_one_image_does_not_reach_the_others(large):
    model, images, _, _ = large
    before, spoilt = model(Tensor(images)).asnumpy(), images.copy()
    spoilt[1, 0, 5, 5] = np.inf
    after = model(Tensor(spoilt)).asnumpy()
    assert not np.isfinite(after[1]).any()
    assert np.array_equal(after[::2], before[::2])


def test_feature_maps_are_the_same():
    with ops.use_backend("native"):
        model = noisy(MSGFeatures(**SMALL)).set_train(False)
    images = Tensor(np.random.RandomState(1).standard_normal((1, 3, 32, 64)).astype(np.float32))
    before = [x.asnumpy() for x in model(images)]
    for a, b in zip(before, optimize_for_inference(model)(images), strict=True):
        assert np.array_equal(a, b.asnumpy())


def test_uses_that_need_the_parameters_are_refused(tmp_path):
    with ops.use_backend("native"):
        model = MSGTransformer(**SMALL)
    reference = Reference.of(model, False, 1)
    optimize_for_inference(model)
    with pytest.raises(UserError, match="training needs the blocks' own parameters"):
        model.set_train()
    with pytest.raises(UserError, match="set_precision needs the blocks' own parameters"):
        set_precision(model, "O1")
    with pytest.raises(UserError, match="the MSG tokens' attention needs"):
        MessageAttention(model)
    with pytest.raises(UserError, match="an export needs"):
        export_mindir(model, Path(tmp_path / "x.mindir"), reference, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("choice", ("composed", "native"))
def test_composed_and_half_precision_models_stay_as_they_are(choice):
    with ops.use_backend(choice):
        model = MSGTransformer(**SMALL)
        if choice == "native":
            set_precision(model, "O2", "bfloat16")
        names = {parameter.name for parameter in model.get_parameters()}
        optimize_for_inference(model)
    assert {parameter.name for parameter in model.get_parameters()} == names
    assert model.set_train().training
