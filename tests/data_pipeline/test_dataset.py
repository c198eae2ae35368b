"""Pictures and order: torchvision's crops bit for bit, and randomness from (seed, epoch, index) alone."""

import cv2
import numpy as np
import pytest
from reference import DATA

from msg_ms import UserError
from msg_ms.config import load_config
from msg_ms.data import EvalDataset, TrainDataset, check_classes, scan_folder
from msg_ms.data.dataset import EpochOrder
from msg_ms.data.transforms import MEAN, STD, crop_box, resize_and_crop

IMAGES = 11


@pytest.fixture
def folder(tmp_path):
    draws = np.random.RandomState(0)
    for i in range(IMAGES):
        target = tmp_path / "data" / ("cat", "dog", "newt")[i % 3]
        target.mkdir(parents=True, exist_ok=True)
        suffix = (".JPEG", ".jpg", ".png")[i % 3]
        pixels = cv2.resize(draws.randint(0, 256, (6, 6, 3), np.uint8), (40 + i, 50 - i))
        (target / f"{i}{suffix}").write_bytes(cv2.imencode(suffix.lower(), pixels)[1].tobytes())
    (tmp_path / "data" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "data" / ".hidden").mkdir()
    return tmp_path / "data"


def config(*opts):
    return load_config(None, ["DATA.IMG_SIZE", "32", "DATA.BATCH_SIZE", "4", *opts])


def train_set(folder, workers=1, seed=3):
    c = config()
    return TrainDataset(scan_folder(folder), c.data, c.aug, seed, workers)


def rows(batches):
    return [
        (image.tobytes(), int(label)) for images, labels in batches for image, label in zip(images, labels, strict=True)
    ]


@pytest.mark.parametrize("file", sorted((DATA / "images").glob("val_*.jpg")), ids=lambda file: file.stem)
def test_validation_crop_is_torchvisions_bit_for_bit(file):
    from mindspore.dataset import vision

    image = vision.Decode()(np.fromfile(file, np.uint8))
    with np.load(DATA / "val_crops.npz") as wanted:
        assert (resize_and_crop(image, 224, "bicubic", crop=True) == wanted[file.stem.removeprefix("val_")]).all()


def test_evaluation_gives_every_image_once_in_order(folder):
    c = config("TEST.CROP", "False")
    listed = scan_folder(folder)
    assert listed.classes == ("cat", "dog", "newt") and len(listed) == IMAGES
    batches = list(EvalDataset(listed, c.data, c.test.crop, 2).batches())
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    assert [int(label) for _, labels in batches for label in labels] == list(listed.labels)
    images = np.concatenate([images for images, _ in batches])
    assert images.dtype == np.float32 and images.shape == (IMAGES, 3, 32, 32)
    for i, file in enumerate(listed.files):
        if file.endswith(".png"):  # lossless: resized here by cv2 it is not the same, but close in the mean
            pixels = cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB).mean((0, 1)) / 255
            assert np.abs(images[i].mean((1, 2)) * STD + MEAN - pixels).max() < 0.03


def test_neither_workers_nor_resuming_change_a_picture(folder):
    whole = rows(train_set(folder, workers=1).batches(0, 3))
    assert len(whole) == 3 * 8  # two batches of four per epoch, three images left out of each
    assert rows(train_set(folder, workers=2).batches(0, 3)) == whole
    assert rows(train_set(folder, workers=2).batches(3, 3)) == whole[12:]  # from the middle of the second epoch
    assert rows(train_set(folder, seed=4).batches(0, 3)) != whole


def test_every_epoch_has_its_own_order_and_pictures(folder):
    order = EpochOrder(IMAGES, 4, seed=0)
    epochs = [order.indices(epoch).tolist() for epoch in range(3)]
    assert all(len(set(epoch)) == 8 and set(epoch) <= set(range(IMAGES)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
    data = train_set(folder)
    assert data.sample(0, 5)[0].tobytes() == data.sample(0, 5)[0].tobytes() != data.sample(1, 5)[0].tobytes()


def test_crop_boxes_lie_inside_and_keep_scale_and_ratio():
    rng = np.random.default_rng(0)
    areas, ratios = [], []
    for _ in range(2000):
        top, left, height, width = crop_box(300, 400, (0.08, 1.0), (3 / 4, 4 / 3), rng)
        assert 0 <= top <= 300 - height and 0 <= left <= 400 - width and height > 0 < width
        areas.append(height * width / 120_000)
        ratios.append(width / height)
    assert 0.079 < min(areas) < 0.09 and 0.95 < max(areas) <= 1.0
    assert min(ratios) > 0.74 and max(ratios) < 1.35
    # No box of ratio 1 and full area fits: the largest central one is taken.
    assert crop_box(100, 400, (1.0, 1.0), (1.0, 1.0), rng) == (0, 150, 100, 100)
    assert crop_box(400, 100, (1.0, 1.0), (1.0, 1.0), rng) == (150, 0, 100, 100)


def test_horizontal_flip_mirrors(folder):
    plain, mirrored = (
        TrainDataset(scan_folder(folder), config().data, config("AUG.HFLIP", flip).aug, 0, 1).sample(0, 2)[0]
        for flip in ("0", "1")
    )
    assert (plain[:, ::-1] == mirrored).all() and not (plain == mirrored).all()


def test_what_a_folder_can_lack(folder, tmp_path):
    with pytest.raises(UserError, match=r"no folder .*nowhere; --data-path must hold train/ and val/"):
        scan_folder(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match=r"bare holds no class folders"):
        scan_folder(tmp_path / "bare")
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no images \(.jpeg, .jpg, .png\)"):
        scan_folder(folder)
    (folder / "empty").rmdir()
    listed = scan_folder(folder)
    with pytest.raises(
        UserError, match=r"3 class folders, but MODEL.NUM_CLASSES=1000; pass --opts MODEL.NUM_CLASSES 3"
    ):
        check_classes(listed, listed, 1000)
    with pytest.raises(UserError, match=r"11 images, fewer than one batch of DATA.BATCH_SIZE=64"):
        TrainDataset(listed, config("DATA.BATCH_SIZE", "64").data, config().aug, 0, 1)
