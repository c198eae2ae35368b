"""Images and their order: torchvision's crops bit for bit; randomness depends on (seed, epoch, index) only."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image
from support.reference import FIXTURES

from msg_ms.config import load_config
from msg_ms.data import EpochOrder, EvalDataset, ImageFolder, Shard, TrainDataset, scan_folder
from msg_ms.data.pixels.collate import Erasing, collate
from msg_ms.data.pixels.decode import decode
from msg_ms.data.pixels.transforms import MEAN, STATISTICS, STD, crop_box, resize_and_crop

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
    (tmp_path / "data" / "cat" / "notes.txt").write_text("no image", encoding="utf-8")
    (tmp_path / "data" / ".hidden").mkdir()
    return tmp_path / "data"


PLAIN = ["AUG.AUTO_AUGMENT", "none", "AUG.COLOR_JITTER", "0", "AUG.REPROB", "0", "AUG.MIXUP", "0", "AUG.CUTMIX", "0"]


def config(*opts):
    return load_config(None, ["DATA.IMG_SIZE", "32", "DATA.BATCH_SIZE", "4", *opts])


def train_set(folder, *opts, workers=1, seed=3, shard=Shard(), channels=3):  # noqa: B008
    c = config(*opts)
    return TrainDataset(scan_folder(folder), c.data, c.aug, 3, 0.1, seed, workers, shard, channels=channels)


def rows(batches):
    return [(image.tobytes(), label.tobytes()) for batch in batches for image, label in zip(*batch[:2], strict=True)]


@pytest.mark.parametrize("file", sorted((FIXTURES / "images").glob("val_*.jpg")), ids=lambda file: file.stem)
def test_validation_crop_is_torchvisions_bit_for_bit(file):
    image = decode(file.read_bytes())
    with np.load(FIXTURES / "val_crops.npz") as expected:
        assert (resize_and_crop(image, 224, "bicubic", crop=True) == expected[file.stem.removeprefix("val_")]).all()


def test_evaluation_yields_every_image_once_in_order(folder):
    c = config("TEST.CROP", "False")
    listed = scan_folder(folder)
    assert listed.classes == ("cat", "dog", "newt") and len(listed) == IMAGES
    batches = list(EvalDataset(listed, c.data, c.test.crop, 2).batches())
    assert all(images.shape == (4, 3, 32, 32) and images.dtype == np.float32 for images, *_ in batches)
    images, labels, index, valid = (np.concatenate(column) for column in zip(*batches, strict=True))
    assert valid.tolist() == IMAGES * [1] + [0]  # the last batch is filled up
    assert labels[:IMAGES].tolist() == list(listed.labels) and index[:IMAGES].tolist() == list(range(IMAGES))
    for i, file in enumerate(listed.files):
        if file.endswith(".png"):  # lossless: cv2 resizes differently, but the mean is close
            pixels = cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB).mean((0, 1)) / 255
            assert np.abs(images[i].mean((1, 2)) * STD + MEAN - pixels).max() < 0.03


def test_a_model_of_one_channel_gets_pillows_luminance(folder):
    Image.open(folder / "newt" / "2.png").convert("L").save(folder / "newt" / "grey.png")
    (means, stds), ((mean,), (std,)) = STATISTICS[3], STATISTICS[1]
    assert (mean, std) == pytest.approx((np.mean(means), np.mean(stds)), abs=1e-12)  # timm's rule for other channels
    listed = scan_folder(folder)
    batches = list(EvalDataset(listed, config().data, False, 1, channels=1).batches())
    images = np.concatenate([images for images, *_ in batches])
    for i, file in enumerate(listed.files):
        image = Image.open(file)
        pixels = image.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC).convert("L")
        assert np.abs(images[i] * std + mean - np.asarray(pixels, np.float32) / 255).max() < 1e-6
        if image.mode == "L":
            assert (np.asarray(pixels) == np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))).all()
    assert images.shape == (12, 1, 32, 32) and Image.open(listed.files[-1]).mode == "L"
    # The recipe's augmentation is that of colour images.
    opts = ("AUG.REPROB", "0", "AUG.MIXUP", "0", "AUG.CUTMIX", "0")
    colour, grey = train_set(folder, *opts), train_set(folder, *opts, channels=1)
    for index in range(4):
        pixels, same = colour.sample(1, index)[0], grey.sample(1, index)[0]
        assert (np.asarray(Image.fromarray(pixels).convert("L")) == same[..., 0]).all() and same.shape == (32, 32, 1)


def test_neither_workers_nor_resuming_change_a_batch(folder):
    whole = rows(train_set(folder, workers=1).batches(0, 3))  # the full recipe, mixing included
    assert len(whole) == 3 * 8  # two batches of four per epoch, three images left out of each
    for workers in (2, 4):
        assert rows(train_set(folder, workers=min(workers, os.cpu_count())).batches(0, 3)) == whole
    assert rows(train_set(folder, workers=2).batches(3, 3)) == whole[12:]  # from the middle of the second epoch
    assert rows(train_set(folder, seed=4).batches(0, 3)) != whole


@pytest.mark.parametrize("world", (2, 3))
def test_ranks_share_the_images_of_one_process(folder, world):
    size = 6 // world
    parts = [
        list(train_set(folder, *PLAIN, "DATA.BATCH_SIZE", str(size), shard=Shard(rank, world)).batches(0, 2))
        for rank in range(world)
    ]
    together = [np.concatenate([batch.images for batch in step]) for step in zip(*parts, strict=True)]
    alone = [batch.images for batch in train_set(folder, *PLAIN, "DATA.BATCH_SIZE", "6").batches(0, 2)]
    assert len(alone) == 2 and all((a == b).all() for a, b in zip(together, alone, strict=True))


def test_every_epoch_has_its_own_order_and_images(folder):
    order = EpochOrder(IMAGES, 4, seed=0)
    epochs = [order.indices(epoch).ravel().tolist() for epoch in range(3)]
    assert all(len(set(epoch)) == 8 and set(epoch) <= set(range(IMAGES)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
    data = train_set(folder)
    assert data.sample(0, 5)[0].tobytes() == data.sample(0, 5)[0].tobytes() != data.sample(1, 5)[0].tobytes()


@pytest.mark.parametrize("images", (1, 7, 21, 50))
@pytest.mark.parametrize("world", (1, 2, 3, 4))
def test_ranks_evaluate_every_image_once(images, world):
    listed = ImageFolder(None, ("a",), ("x",) * images, (0,) * images)
    parts = [EvalDataset(listed, config().data, True, 1, Shard(rank, world)) for rank in range(world)]
    assert sorted(i for part in parts for i in part.indices) == list(range(images))
    assert [part.steps for part in parts] == [-(-len(part.indices) // 4) for part in parts]


def test_crop_boxes_are_inside_and_keep_scale_and_ratio():
    rng = np.random.default_rng(0)
    areas, ratios = [], []
    for _ in range(2000):
        top, left, height, width = crop_box(300, 400, (0.08, 1.0), (3 / 4, 4 / 3), rng)
        assert 0 <= top <= 300 - height and 0 <= left <= 400 - width and height > 0 < width
        areas.append(height * width / 120_000)
        ratios.append(width / height)
    assert 0.079 < min(areas) < 0.09 and 0.95 < max(areas) <= 1.0
    assert min(ratios) > 0.74 and max(ratios) < 1.35
    # No box of ratio 1 and full area fits, so the largest central box is used.
    assert crop_box(100, 400, (1.0, 1.0), (1.0, 1.0), rng) == (0, 150, 100, 100)
    assert crop_box(400, 100, (1.0, 1.0), (1.0, 1.0), rng) == (150, 0, 100, 100)


def test_horizontal_flip_mirrors(folder):
    plain, mirrored = (train_set(folder, *PLAIN, "AUG.HFLIP", flip).sample(0, 2)[0] for flip in ("0", "1"))
    assert (plain[:, ::-1] == mirrored).all() and not (plain == mirrored).all()


def test_each_augmentation_key_changes_the_batch(folder):
    (plain,) = list(train_set(folder, *PLAIN, "DATA.BATCH_SIZE", "8").batches(0, 1))
    for change in (
        "AUG.AUTO_AUGMENT rand-m9-n4-p1",
        "AUG.COLOR_JITTER 0.4",
        "AUG.REPROB 1",
        "AUG.MIXUP 0.8",
        "AUG.CUTMIX 1.0",
        "AUG.CUTMIX_MINMAX [0.3,0.8]",
        "AUG.CROP_SCALE [0.5,0.6]",
        "AUG.CROP_RATIO [2,3]",
        "DATA.INTERPOLATION bilinear",
    ):
        (changed,) = list(train_set(folder, *PLAIN, "DATA.BATCH_SIZE", "8", *change.split()).batches(0, 1))
        assert not np.array_equal(plain[0], changed[0]), change
    for more in ("AUG.REMODE const", "AUG.REMODE rand", "AUG.RECOUNT 3"):
        one, other = (
            next(train_set(folder, *PLAIN, "AUG.REPROB", "1", *opts).batches(0, 1))[0] for opts in ([], more.split())
        )
        assert not np.array_equal(one, other), more


def test_erasing_before_mixing_equals_a_plain_computation():
    draws = np.random.RandomState(0)
    images = [draws.randint(0, 256, (8, 9, 3), np.uint8) for _ in range(4)]
    erasings = [[], [Erasing(2, 3, 4, 5, draws.randn(3, 4, 5).astype(np.float32))], [], []]
    plain = np.stack([(image / 255 - MEAN) / STD for image in images]).transpose(0, 3, 1, 2)
    assert np.abs(collate(images) - plain).max() < 1e-5
    plain[1][erasings[1][0].area] = erasings[1][0].fill
    assert np.abs(collate(images, erasings) - plain).max() < 1e-5
    assert np.abs(collate(images, erasings, 0.3) - (0.3 * plain + 0.7 * plain[::-1])).max() < 1e-5
    cut = plain.copy()
    cut[:, :, 1:5, 2:9] = plain[::-1, :, 1:5, 2:9]
    assert np.abs(collate(images, erasings, 0.3, (1, 5, 2, 9)) - cut).max() < 1e-5


def test_the_last_of_overlapping_boxes_counts_in_a_blend_too():
    draws = np.random.RandomState(0)
    images = [draws.randint(0, 256, (8, 9, 3), np.uint8) for _ in range(2)]
    erasings = [[Erasing(1, 2, 5, 4, np.float32([[[1]]])), Erasing(3, 3, 4, 5, np.float32([[[2]]]))], []]
    erased = collate(images, erasings)
    assert (erased[0][:, 3:6, 3:6] == 2).all()
    blend = collate(images, erasings, 0.3)
    assert np.abs(blend - (0.3 * erased + 0.7 * erased[::-1])).max() < 1e-5
