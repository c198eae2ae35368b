"""Constructor arguments, initialisation and run-time behaviour beyond the reference cases."""

import dataclasses
import inspect

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from support.reference import SMALL

from msg_ms import MSGTransformer, UserError
from msg_ms.models.architecture import Architecture
from msg_ms.models.layers import DropPath, PatchConv
from msg_ms.ops import Residual


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_size": 40}, r"img_size=40 .*fit: 32 or 64"),
        ({"num_heads": (3, 2)}, r"num_heads\[0\]=3 doesn't divide the 16 channels.*(2|4)"),
        ({"embed_dim": 18, "num_heads": (1, 1)}, r"shuffle_size\[0\]=2: its 4 .*18 channels.*embed_dim=20"),
        ({"depths": (1, 1, 1)}, r"num_heads=\[1, 2\]: must have one entry"),
        ({"shuffle_size": (2,)}, r"shuffle_size=\[2\]: must have one entry"),
        ({"depths": ()}, r"depths=\[\]: must have one entry"),
        ({"manip_type": "swap"}, r"manip_type='swap': must be 'shuf' or 'none'"),
        ({"patch_size": 2}, r"patch_size=2: must be at least 3"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate=1.0: must be at least 0 and below 1"),
        ({"num_classes": -1}, r"num_classes=-1: must be at least 0"),
    ],
)
def test_impossible_settings_name_argument_value_and_remedy(change, message):
    with pytest.raises(ValueError, match=message):
        MSGTransformer(**{**SMALL, **change})


def test_defaults_are_the_architectures():
    parameters = inspect.signature(MSGTransformer).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if name != "num_classes"}
    assert defaults == dataclasses.asdict(Architecture())


def test_run_time_input_is_checked_and_other_sizes_run():
    model = MSGTransformer(**SMALL).set_train(False)
    assert model(Tensor(np.zeros((2, 3, 32, 64), np.float32))).shape == (2, 3)
    with pytest.raises(UserError, match=r"img_size=\(36, 32\)"):
        model(Tensor(np.zeros((1, 3, 36, 32), np.float32)))
    with pytest.raises(UserError, match="1 channels, but the model has in_chans=3"):
        model(Tensor(np.zeros((1, 1, 32, 32), np.float32)))


def test_absolute_position_embedding_is_added_to_the_patch_tokens():
    plain, embedded = (
        MSGTransformer(**SMALL).set_train(False),
        MSGTransformer(**SMALL, ape=True).set_train(False),
    )
    weights = {p.name: p for p in plain.get_parameters()}
    for parameter in embedded.get_parameters():
        if parameter.name != "absolute_pos_embed":
            parameter.set_data(weights[parameter.name])
    assert embedded.absolute_pos_embed.shape == (1, 64, 16)
    offset = np.random.RandomState(0).randn(64, 16).astype(np.float32)
    embedded.absolute_pos_embed.set_data(Tensor(offset[None]))
    x = Tensor(np.random.RandomState(1).randn(2, 3, 32, 32).astype(np.float32))
    without, with_ape = (m.embed(x, m.geometry[0]).asnumpy() for m in (plain, embedded))
    # (regions, G, N, C): regions of 2 x 2 windows of 4 x 4 tokens on the 8 x 8 map, the MSG token in front
    wanted = offset.reshape(2, 4, 2, 4, 16).transpose(0, 2, 1, 3, 4).reshape(4, 16, 16)
    assert np.abs(with_ape[:, :, 0] - without[:, :, 0]).max() == 0
    assert np.abs(with_ape[:, :, 1:] - without[:, :, 1:] - wanted).max() < 1e-5
    with pytest.raises(UserError, match="with ape=True only"):
        embedded(Tensor(np.zeros((1, 3, 64, 64), np.float32)))


def test_initialisation_is_the_papers():
    model = MSGTransformer(
        img_size=64, embed_dim=64, depths=(2, 2), num_heads=(2, 4), window_size=4, shuffle_size=(4, 2)
    )
    for parameter in model.get_parameters():
        values, name = parameter.asnumpy(), parameter.name
        if ".reduction." in name or (".proj." in name and name.startswith("patch_embed")):
            weight = {p.name: p for p in model.get_parameters()}[name.rsplit(".", 1)[0] + ".weight"]
            bound = 1 / np.sqrt(np.prod(weight.shape[1:]))
            assert np.abs(values).max() <= bound * (1 + 1e-6)
            assert values.size < 100 or np.isclose(values.std(), bound / np.sqrt(3), rtol=0.15), name
        elif name.endswith("gamma"):
            assert (values == 1).all()
        elif name.endswith(("beta", "bias")):
            assert (values == 0).all(), name
        elif values.size >= 1000:
            assert np.isclose(values.std(), 0.02, rtol=0.1), name
            assert np.abs(values).max() > 0.055, name  # not cut at two deviations


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 4, 2), (3, 2, 1), (7, 8, 2)])
def test_both_convolution_paths_agree(kernel, stride, padding):
    x = Tensor(np.random.RandomState(0).randn(2, 3, 16, 24).astype(np.float32))
    paths = [PatchConv(3, 5, kernel, stride, padding, unfold) for unfold in (True, False)]
    for own, other in zip(paths[1].get_parameters(), paths[0].get_parameters(), strict=True):
        own.set_data(other)

    def total(path):
        def f(x, weight, bias):
            return (path(x) ** 2).sum()

        return f

    outputs = [path(x).asnumpy() for path in paths]
    assert outputs[0].shape == (2, 16 // stride, 24 // stride, 5)
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-5
    gradients = []
    for path in paths:
        step = ms.value_and_grad(total(path), 0, path.trainable_params())
        _, (to_input, to_parameters) = step(x, path.weight, path.bias)
        gradients.append([to_input.asnumpy(), *(g.asnumpy() for g in to_parameters)])
    for a, b in zip(*gradients, strict=True):
        assert np.abs(a - b).max() < 1e-4 * max(1, np.abs(a).max())


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    batch, regions = 400, 3
    cell = DropPath((0.0, 0.25)).set_train(True)
    always, keep = (x.asnumpy() for x in cell(batch))
    kept = keep > 0
    assert (always == 1).all() and np.allclose(keep[kept], 1 / 0.75)
    assert 0.69 < kept.mean() < 0.81  # 3.9 deviations of 800 draws at 0.75
    keep = keep[1]
    x = Tensor(np.ones((batch * regions, 2, 5, 4), np.float32))
    y = Residual()(x - 1, x, Tensor(keep)).asnumpy()
    assert (y.reshape(batch, -1) == keep[:, None]).all()  # an image is dropped as a whole
    assert cell.set_train(False)(batch) is None


def test_drop_path_follows_the_noise_it_receives():
    cell = DropPath((0.25, 0.9)).set_train(True)
    noise = Tensor(np.array([[[0.2, 0.25, 0.9], [0.1, 0.3, 0.2]]] * 2, np.float32))
    first, second = (x.asnumpy() for x in cell(3, noise))
    assert np.allclose(first, [[0, 4 / 3, 4 / 3], [0, 4 / 3, 0]]) and np.allclose(second, [[0, 0, 10], [0, 0, 0]])
    model = MSGTransformer(**{**SMALL, "drop_path_rate": 0.9}).set_train(True)
    x = Tensor(np.random.RandomState(0).randn(2, 3, 32, 32).astype(np.float32))
    kept, mixed = np.ones((2, 2, 2), np.float32), np.ones((2, 2, 2), np.float32)
    mixed[1, :, 0] = 0  # the second block loses both branches of the first image
    alone, both = (model(x, Tensor(noise)).asnumpy() for noise in (kept, mixed))
    assert (alone[1] == both[1]).all() and not np.allclose(alone[0], both[0])


def test_drop_path_grows_linearly_over_all_blocks():
    model = MSGTransformer(**{**SMALL, "depths": (2, 3), "drop_path_rate": 0.4})
    assert np.allclose(model.drop_path.probabilities, [0, 0.1, 0.2, 0.3, 0.4])


def test_without_a_head_the_model_returns_features():
    model = MSGTransformer(**{**SMALL, "num_classes": 0}).set_train(False)
    assert model(Tensor(np.zeros((2, 3, 32, 32), np.float32))).shape == (2, 32)
