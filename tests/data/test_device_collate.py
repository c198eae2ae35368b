"""Batches that cross the bus as uint8 become those of the float32 pipeline on the device."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from test_dataset import config, folder, train_set  # noqa: F401

from msg_ms.config import load_config
from msg_ms.data import DeviceCollate, EvalDataset, scan_folder
from msg_ms.data.pipeline import arrays_of, signature_of
from msg_ms.data.pixels.device_collate import can_erase_on_device

RAW = ["DATA.NORMALIZE_ON_DEVICE", "True"]
# Normalised values are below 4; the kernels of the host may fuse a product and a sum, the device rounds each.
ROUNDING = 4 * 2.0**-23


def on_device(collate, images, *inputs):
    assert images.dtype == np.uint8 and images.shape[1:3] == (32, 32)
    return collate(Tensor(images), *map(Tensor, inputs)).asnumpy()


@pytest.mark.parametrize("channels", (3, 1))
def test_evaluation_images_are_the_same_and_have_a_quarter_of_the_bytes(folder, channels):  # noqa: F811
    collate, listed = DeviceCollate(), scan_folder(folder)
    plain, raw = (EvalDataset(listed, config(*opts).data, True, 1, channels=channels) for opts in ([], RAW))
    for (images, labels, _, valid), (pixels, *others) in zip(plain.batches(), raw.batches(), strict=True):
        assert np.abs(on_device(collate, pixels) - images).max() <= ROUNDING
        assert (others[0] == labels).all() and (others[2] == valid).all()
        assert images.nbytes == 4 * pixels.nbytes and images.shape[1] == channels
    assert raw.signatures == [tuple((a.shape, a.dtype.type) for a in (pixels, *others))]


SEVERAL_COLOURS = ["AUG.REPROB", "0.8", "AUG.REMODE", "rand", "AUG.RECOUNT", "3"]


@pytest.mark.parametrize(
    "opts, mode, channels",
    [
        (["AUG.REPROB", "0"], ms.PYNATIVE_MODE, 3),
        (["AUG.REPROB", "0", "AUG.MIXUP", "0", "AUG.CUTMIX", "0"], ms.PYNATIVE_MODE, 3),
        (["AUG.REPROB", "0.8", "AUG.REMODE", "const", "AUG.MIXUP", "0"], ms.PYNATIVE_MODE, 1),
        (SEVERAL_COLOURS, ms.PYNATIVE_MODE, 3),
        (SEVERAL_COLOURS, ms.GRAPH_MODE, 3),
        (SEVERAL_COLOURS, ms.GRAPH_MODE, 1),
    ],
)
def test_training_batches_are_erased_and_mixed_alike(folder, opts, mode, channels):  # noqa: F811
    ms.set_context(mode=mode)
    collate = DeviceCollate()
    plain, raw = (train_set(folder, *opts, *raw, channels=channels) for raw in ([], RAW))
    kinds = set()
    for (images, labels, *_), batch in zip(plain.batches(0, 6), raw.batches(0, 6), strict=True):
        pixels, soft, *inputs = arrays_of(batch)
        # Blends have two products and two sums more.
        assert np.abs(on_device(collate, pixels, *inputs) - images).max() <= 4 * ROUNDING
        assert (soft == labels).all()
        mixing = inputs[0]
        kinds.add("cutmix" if mixing[2] > 0 else "mixup" if mixing[0] < 1 else "none")
        assert raw.signatures == [signature_of(batch)]
    assert kinds == ({"none"} if "AUG.CUTMIX" in opts else {"cutmix"} if "AUG.MIXUP" in opts else {"mixup", "cutmix"})


def test_noise_stays_with_the_float32_batches(folder):  # noqa: F811
    data = train_set(folder, *RAW)
    assert not can_erase_on_device(load_config(None).aug)
    images = next(data.batches(0, 1)).images
    assert images.dtype == np.float32 and data.signatures[0].images == (images.shape, np.float32)
