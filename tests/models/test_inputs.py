"""Inputs of models from Python: arrays and lists work, everything else is refused with a reason."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from support.reference import SMALL
from support.tiny_detector import tiny_detector

from msg_ms import MSGFeatures, MSGTransformer, UserError
from msg_ms.ops import use_backend

BAD_IMAGES = {
    "abc": r"'abc' is no array of numbers: expected normalised images \(B, C, height, width\), float32",
    None: "None is no array of numbers",
    (1, (2, 3)): "tuple with rows of different lengths",
    (): r"the images have shape \(0,\)",
}


@pytest.fixture(scope="module")
def image():
    return np.random.RandomState(0).standard_normal((2, 3, 32, 32)).astype(np.float32)


def test_classifiers_and_features_accept_arrays_and_lists(image):
    with use_backend("composed"):
        model = MSGTransformer(**{**SMALL, "img_size": 32}).set_train(False)
    expected = model(Tensor(image)).asnumpy()
    for same in (image, image.astype(np.float64), np.asfortranarray(image), image.tolist()):
        assert np.array_equal(model(same).asnumpy(), expected)
    assert np.array_equal(model(x=image).asnumpy(), expected)
    features = MSGFeatures(**{**SMALL, "img_size": 32})
    for net in (model, features):
        for bad, message in BAD_IMAGES.items():
            with pytest.raises(UserError, match=message):
                net(bad)
        with pytest.raises(UserError, match=r"the images have shape \(3, 32, 32\)"):
            net(image[0])
        with pytest.raises(UserError, match="an array of uint8: expected normalised images"):
            net(image.astype(np.uint8))
        with pytest.raises(UserError, match="a Tensor of Int32"):
            net(Tensor(image, ms.int32))


def test_a_detector_accepts_arrays_and_refuses_sizes_that_do_not_fit():
    with use_backend("composed"):
        model = tiny_detector().set_train(False)
    images, sizes, factors = np.zeros((1, 3, 64, 96), np.float32), [[64, 96]], [[1, 1, 1, 1]]
    found = model.predict(images, sizes, sizes, factors)
    again = model.predict(Tensor(images), np.array(sizes), Tensor(sizes), np.array(factors))
    assert len(found) == 1 and np.array_equal(found[0].boxes, again[0].boxes)
    two = np.concatenate([images, images])
    for arguments, message in (
        ((two, sizes, sizes, factors), r"img_shapes has shape \(1, 2\): expected 2 numbers above 0 for each of the 2"),
        ((images, sizes * 2, sizes, factors), r"img_shapes has shape \(2, 2\)"),
        ((images, sizes, (64, 96), factors), r"ori_shapes has shape \(2,\)"),
        ((images, sizes, sizes, [[1, 1]]), r"scale_factors has shape \(1, 2\): expected 4 numbers"),
        ((images, sizes, sizes, [[1, 1, 0, 1]]), r"scale_factors=\[\[1, 1, 0, 1\]\]: expected 4 numbers above 0"),
        ((images, [[65, 96]], sizes, factors), "larger than the images of 64 x 96"),
        ((images, "x", sizes, factors), "'x' is no array of numbers: img_shapes: expected"),
        ((images, [[1, 2], [3]], sizes, factors), "list with rows of different lengths: img_shapes"),
        (("x", sizes, sizes, factors), "'x' is no array of numbers"),
        ((images[0], sizes, sizes, factors), r"the images have shape \(3, 64, 96\)"),
    ):
        with pytest.raises(UserError, match=message):
            model.predict(*arguments)
