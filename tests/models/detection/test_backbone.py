"""The detection backbone against mmdetection's vectors and the classifier's feature extractor."""

import itertools

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from support.detection import TABLE, vectors
from support.detection_model import backbone, check_gradient, torch_names

from msg_ms import MSGFeatures, UserError
from msg_ms.checkpoint import parameters_by_name
from msg_ms.models.detection.backbone import DetectionBackbone
from msg_ms.models.detection.window_maps import shuffle_grid, stage_maps

SMALL = dict(embed_dim=16, depths=(1, 2), num_heads=(1, 2), window_size=4, shuffle_size=(2, 2))


@pytest.fixture
def pynative():
    """Without compilation, for tests of a few calls."""
    ms.set_context(mode=ms.PYNATIVE_MODE)


class WeightedSum(nn.Cell):
    """The scalar of the vectors: sum over i of sum(out_i * weight_i)."""

    def __init__(self, model, weights):
        super().__init__(auto_prefix=False)
        self.model, self.weights = model, weights

    def construct(self, image):
        maps, messages = self.model.maps_and_messages(image)
        scalar = 0
        for i in range(len(maps)):
            scalar = scalar + (maps[i] * self.weights[i]).sum()
        return scalar, maps, messages


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, pytest.param(ms.GRAPH_MODE, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", [case for (case,) in vectors("backbone").cases(r"([^/]+)/image")])
def test_maps_messages_and_gradients_match_mmdetection(case, mode):
    ms.set_context(mode=mode)
    reference, model = vectors("backbone"), backbone()
    weights = [Tensor(reference[key]) for key in reference.match(rf"{case}/weight(\d+)").values()]
    cell = WeightedSum(model, weights).set_train(False)
    parameters = list(model.trainable_params())
    function = ms.value_and_grad(cell, 0, parameters, has_aux=True)
    function = function if mode == ms.PYNATIVE_MODE else ms.jit(function)
    (scalar, maps, messages), (image_gradient, gradients) = function(Tensor(reference[f"{case}/image"]))
    for i, (one, grid) in enumerate(zip(maps, messages, strict=True)):
        TABLE.check(f"backbone {case} out{i}", one, reference[f"{case}/out{i}"])
        TABLE.check(f"backbone {case} messages{i}", grid, reference[f"{case}/messages{i}"])
    TABLE.check(f"backbone {case} scalar", scalar.reshape(1), reference[f"{case}/scalar"].reshape(1), "loss")
    check_gradient("backbone", f"{case}/grad/image", image_gradient)
    names = torch_names(parameters, "backbone.")
    assert {f"{case}/grad/{name}" for name in names} | {f"{case}/grad/image"} == set(
        reference.match(rf"{case}/grad/(.+)").values()
    )
    for name, gradient in zip(names, gradients, strict=True):
        check_gradient("backbone", f"{case}/grad/{name}", gradient)


def test_maps_equal_the_feature_extractors_where_nothing_needs_padding(pynative):
    features = MSGFeatures(img_size=32, out_norm=True, **SMALL).set_train(False)
    model = DetectionBackbone(**SMALL).set_train(False)
    own = parameters_by_name(model.get_parameters())
    for name, parameter in parameters_by_name(features.get_parameters()).items():
        own.pop(name).set_data(parameter)
    assert not own
    image = Tensor(np.random.RandomState(0).standard_normal((2, 3, 64, 128)).astype(np.float32))
    for wanted, actual in zip(features(image), model(image), strict=True):
        assert np.array_equal(wanted.asnumpy(), actual.asnumpy())


def test_images_whose_sides_are_no_multiples_of_a_patch_are_padded_with_zeros(pynative):
    model = DetectionBackbone(**SMALL).set_train(False)
    image = np.random.RandomState(0).standard_normal((1, 3, 38, 49)).astype(np.float32)
    padded = np.pad(image, ((0, 0), (0, 0), (0, 2), (0, 3)))
    for wanted, actual in zip(model(Tensor(padded)), model(Tensor(image)), strict=True):
        assert np.array_equal(wanted.asnumpy(), actual.asnumpy())


@pytest.mark.slow
def test_a_graph_returns_the_same_as_single_operators():
    model = DetectionBackbone(**{**SMALL, "depths": (1, 1)}).set_train(False)
    image = Tensor(np.random.RandomState(0).standard_normal((1, 3, 40, 56)).astype(np.float32))
    compiled = model(image)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    for wanted, actual in zip(model(image), compiled, strict=True):
        assert np.allclose(wanted.asnumpy(), actual.asnumpy(), atol=1e-5)


def test_padded_slots_of_a_region_send_zeros_and_lose_what_they_receive(pynative):
    grid = np.arange(1, 1 + 4 * 3, dtype=np.float32).reshape(1, 4, 1, 3)  # four channels, one row of three windows
    shuffled = shuffle_grid(Tensor(grid), 2).asnumpy()
    # Slice k of slot g and slice g of slot k change places; slots 2 and 3 of each region and slot 1 of the second are
    # padding.
    wanted = np.zeros_like(grid)
    wanted[0, 0, 0, 0], wanted[0, 1, 0, 0] = grid[0, 0, 0, 0], grid[0, 0, 0, 1]
    wanted[0, 0, 0, 1], wanted[0, 1, 0, 1] = grid[0, 1, 0, 0], grid[0, 1, 0, 1]
    wanted[0, 0, 0, 2] = grid[0, 0, 0, 2]
    assert np.array_equal(shuffled, wanted)


@pytest.mark.parametrize("height, width", [(1, 1), (200, 264), (801, 1333)])
def test_grids_of_messages_fit_at_every_size(height, width):
    layouts = stage_maps(height, width, 4, 7, (4, 4, 2, 1))
    for layout, following in itertools.pairwise(layouts):
        assert (following.rows, following.columns) == (-(-layout.rows // 2), -(-layout.columns // 2))


def test_stochastic_depth_follows_the_given_noise(pynative):
    model = DetectionBackbone(**SMALL, drop_path_rate=0.5).set_train()
    image = Tensor(np.random.RandomState(0).standard_normal((2, 3, 40, 48)).astype(np.float32))
    draws = np.random.RandomState(1).uniform(size=(3, 2, 2)).astype(np.float32)
    first, again = (model(image, Tensor(draws))[-1].asnumpy() for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, model(image, Tensor(1 - draws))[-1].asnumpy())


def test_arguments_that_do_not_fit_are_named(pynative):
    with pytest.raises(UserError, match="ape=True"):
        DetectionBackbone(**SMALL, ape=True)
    with pytest.raises(UserError, match="4 channels"):
        DetectionBackbone(**SMALL)(Tensor(np.zeros((1, 4, 32, 32), np.float32)))


def test_flops_at_the_classifiers_size_equal_its_own():
    arguments = dict(embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8))
    own, model = DetectionBackbone(**arguments), MSGFeatures(**arguments)
    # The paper's code counts the merging's norm at the input's size, and it has no output norms.
    output_norms = sum((56 // 2**i) ** 2 * 16 * 2**i for i in range(4))
    merging_norms = sum(((28 // 2**i) ** 2 + (4 // 2**i) ** 2) * 16 * 2**i * (2 - 4) for i in range(3))
    assert own.flops(224, 224) == model.flops() + output_norms + merging_norms
