"""Feature maps against the paper code's stage outputs; padding, norms, gradients, checkpoints."""

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from numpy.lib.stride_tricks import sliding_window_view
from support.reference import FIXTURES, SMALL, Case

import msg_ms
from msg_ms import MSGFeatures, MSGTransformer, UserError
from msg_ms.checkpoint import load_pretrained, load_weights, parameters_by_name, to_numpy, write_checkpoint
from msg_ms.models.windows import fitting_size


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def set_all(cell, arrays: dict[str, np.ndarray]) -> None:
    for name, parameter in parameters_by_name(cell.get_parameters()).items():
        parameter.set_data(Tensor(arrays[name]))


def normalised(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta


def merged(x: np.ndarray, arrays: dict[str, np.ndarray], stage: int) -> np.ndarray:
    """The merging of patch tokens in NumPy, double precision: (B, C, H, W) -> (B, H/2, W/2, 2C)."""
    weight, bias, gamma, beta = (
        arrays[f"layers.{stage}.downsample.{name}"].astype(np.float64)
        for name in ("reduction.weight", "reduction.bias", "norm.gamma", "norm.beta")
    )
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.float64)
    patches = sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]  # (B, C, H/2, W/2, 3, 3)
    return normalised(np.einsum("bchwyx,ocyx->bhwo", patches, weight) + bias, gamma, beta)


def windows(x: np.ndarray, w: int, s: int) -> np.ndarray:
    """(B, H, W, C) -> (B*R, s*s, w*w, C), window by window and region by region."""
    batch, height, width, _ = x.shape
    return np.stack(
        [
            x[b, top + i * w : top + i * w + w, left + j * w : left + j * w + w].reshape(w * w, -1)
            for b in range(batch)
            for top in range(0, height, w * s)
            for left in range(0, width, w * s)
            for i in range(s)
            for j in range(s)
        ]
    ).reshape(-1, s * s, w * w, x.shape[-1])


def test_maps_of_a_rectangular_image_match_the_papers_code():
    """The paper's code returns stage outputs after the merging, which NumPy computes here from the maps."""
    case = Case(FIXTURES / "rectangular_win4_64x128.npz")
    arrays = to_numpy(parameters_by_name(case.model().get_parameters()))
    features = MSGFeatures(**{**case.arguments, "img_size": (64, 128)}).set_train(False)
    set_all(features, arrays)
    maps = [y.asnumpy() for y in features(Tensor(case.inputs()[0]))]
    sizes = [(16 // 2**i, 32 // 2**i) for i in range(len(maps))]
    assert [y.shape[2:] for y in maps] == sizes and [y.shape[1] for y in maps] == features.out_channels
    regions = [region for _, _, region in features.geometry]
    for i, y in enumerate(maps):
        wanted = case.arrays[f"feat/stage{i}"][:, :, 1:]
        if i + 1 < len(maps):
            found = windows(merged(y, arrays, i), 4, regions[i + 1])
        else:
            found = windows(y.transpose(0, 2, 3, 1), 4, regions[i])
        assert np.abs(found[: len(wanted)] - wanted).max() < 1e-5, f"stage {i}"


def test_norms_padding_and_gradients():
    features = MSGFeatures(**{**SMALL, "img_size": 20}, out_norm=True).set_train(False)
    own = parameters_by_name(features.get_parameters())
    assert {n for n in own if n.startswith("norm")} == {f"norm{i}.{p}" for i in (0, 1) for p in ("gamma", "beta")}
    norms = [[1 + 0.1 * draw(i, 16 * 2**i), draw(9 + i, 16 * 2**i)] for i in (0, 1)]
    for i, values in enumerate(norms):
        for name, value in zip(("gamma", "beta"), values, strict=True):
            own[f"norm{i}.{name}"].set_data(Tensor(value))
    plain = MSGFeatures(**SMALL, pad=False).set_train(False)
    set_all(plain, to_numpy(own))

    x = draw(0, 2, 3, 30, 61)
    maps = [y.asnumpy() for y in features(Tensor(x))]
    whole = [y.asnumpy() for y in plain(Tensor(np.pad(x, ((0, 0), (0, 0), (0, 2), (0, 3)))))]
    for i, (y, wanted) in enumerate(zip(maps, whole, strict=True)):
        wanted = normalised(wanted.transpose(0, 2, 3, 1).astype(np.float64), *norms[i]).transpose(0, 3, 1, 2)
        height, width = -(-30 // (4 * 2**i)), -(-61 // (4 * 2**i))
        assert y.shape == (2, 16 * 2**i, height, width)
        assert np.abs(y - wanted[:, :, :height, :width]).max() < 1e-5
    with pytest.raises(UserError, match=r"img_size=\(30, 61\).*fit: height 32, width 32 or 64"):
        plain(Tensor(x))

    weights = [Tensor(draw(5 + i, *y.shape)) for i, y in enumerate(maps)]
    parameters = features.trainable_params()

    def total(x):
        first, second = features(x)
        return (first * weights[0]).sum() + (second * weights[1]).sum()

    value, gradients = ms.value_and_grad(total, None, parameters)(Tensor(x))
    assert abs(value.asnumpy() - sum((y * w.asnumpy()).sum() for y, w in zip(maps, weights, strict=True))) < 1e-2
    gradients = {p.name: g.asnumpy() for p, g in zip(parameters, gradients, strict=True)}
    assert min(np.abs(g).max() for g in gradients.values()) > 0
    # The gradient of the second map's beta is known: the sum of the map's weights.
    wanted = weights[1].asnumpy().sum((0, 2, 3))
    assert np.abs(gradients["norm1.beta"] - wanted).max() < 1e-4
    # The gradient of the first stage's last bias agrees with a central difference.
    bias, step = own["layers.0.blocks.0.mlp.fc2.bias"], draw(8, 16)
    start, ends = bias.asnumpy().copy(), []
    for sign in (1, -1):
        bias.set_data(Tensor(start + sign * 1e-2 * step))
        ends.append(sum((y.asnumpy() * w.asnumpy()).sum() for y, w in zip(features(Tensor(x)), weights, strict=True)))
    slope = (ends[0] - ends[1]) / 2e-2
    assert abs(slope - (gradients[bias.name] * step).sum()) < 0.02 * abs(slope)


def test_a_classifiers_checkpoint_fits(tmp_path):
    classifier = MSGTransformer(**SMALL)
    weights = to_numpy(parameters_by_name(classifier.get_parameters()))
    write_checkpoint(tmp_path / "classifier.ckpt", weights)
    every = MSGFeatures(**SMALL, out_norm=True)
    assert load_pretrained(every, tmp_path / "classifier.ckpt") == []
    first = MSGFeatures(**SMALL, out_indices=[0])
    assert load_pretrained(first, tmp_path / "classifier.ckpt") == []
    for backbone in (every, first):
        found = to_numpy(parameters_by_name(backbone.get_parameters()))
        assert all((found[name] == weights[name]).all() for name in found.keys() & weights.keys())
    dropped = {name for name in weights if name.startswith(("norm.", "head."))}
    assert weights.keys() - parameters_by_name(every.get_parameters()).keys() == dropped
    later = {name for name in weights if name.startswith(("layers.0.downsample.", "layers.1."))}
    assert weights.keys() - parameters_by_name(first.get_parameters()).keys() == dropped | later
    with pytest.raises(UserError, match=r"the model has no (norm|head)"):
        load_weights(every, tmp_path / "classifier.ckpt")
    del weights["msg_tokens"]
    write_checkpoint(tmp_path / "less.ckpt", weights)
    with pytest.raises(UserError, match="msg_tokens is missing"):
        load_pretrained(first, tmp_path / "less.ckpt")


def test_a_shorter_backbone_drops_paths_as_the_whole_one():
    arguments = {**SMALL, "depths": (2, 3), "drop_path_rate": 0.4}
    whole, short = MSGFeatures(**arguments), MSGFeatures(**arguments, out_indices=[0])
    assert np.allclose(whole.drop_path.probabilities, [0, 0.1, 0.2, 0.3, 0.4])
    assert np.allclose(short.drop_path.probabilities, whole.drop_path.probabilities[:2])


def test_sizes_that_hold_an_image():
    papers = (4, 7, (4, 4, 2, 1))
    assert fitting_size(800, 1333, *papers) == (896, 1344)
    assert fitting_size(224, 225, *papers) == (224, 448)
    assert fitting_size(1, 112, 4, 7, (4,)) == (112, 112)
    # A single window in the last stage forms a region of its own; several need regions of shuffle_size.
    assert fitting_size(200, 200, 4, 7, (4, 4, 2, 4)) == (224, 224)
    assert fitting_size(200, 230, 4, 7, (4, 4, 2, 4)) == (896, 896)


@pytest.mark.parametrize("outputs", [(), (1, 0), (0, 0), (0, 4), (-1,), [0, 1, 2, 3, 4]])
def test_impossible_outputs_are_refused(outputs):
    with pytest.raises(UserError, match=r"out_indices=\[.*\]: must be stages in rising order, of 0 to 3"):
        msg_ms.create_model("msg_tiny", features_only=True, out_indices=outputs)


def test_the_papers_models_return_maps_at_strides_4_to_32():
    with ms.nn.utils.no_init_parameters():
        backbone = msg_ms.create_model("msg_tiny", features_only=True)
        classifier = msg_ms.create_model("msg_tiny")
        part = mindcv.create_model("msg_base", features_only=True, out_indices=[1, 3], num_classes=80, drop_rate=None)
    assert [(m["chs"], m["reduction"]) for m in backbone.feature_info] == [(64, 4), (128, 8), (256, 16), (512, 32)]
    assert part.out_channels == [192, 768] and [m["name"] for m in part.feature_info] == ["layers.1", "layers.3"]
    names = [{p.name for p in model.get_parameters()} for model in (classifier, backbone)]
    assert names[0] - names[1] == {"norm.gamma", "norm.beta", "head.weight", "head.bias"} and names[1] < names[0]
    with pytest.raises(UserError, match=r"out_indices=\[0\]: only with features_only=True"):
        msg_ms.create_model("msg_tiny", out_indices=[0])
