"""The transforms of detection against the arrays that mmdetection's pipelines computed."""

import cv2
import numpy as np
import pytest
from support.coco import reference_images, write_split
from support.detection import FOLDER, available, vectors
from support.mask_crops import crop_masks

from msg_ms.boxes.masks import crop_mask
from msg_ms.boxes.rle import decode_columns
from msg_ms.config import DetectionConfig
from msg_ms.data.coco.split import read_split
from msg_ms.data.pixels.decode import decode
from msg_ms.data.pixels.detection_transforms import (
    DRAWS,
    ImageTransform,
    draw_transforms,
    eval_transform,
    place,
    rescaled,
    source_pixels,
    transform_boxes,
    transform_image,
)

pytestmark = pytest.mark.skipif(not available("pipeline"), reason="the folder of the vectors has no pipeline.npz")
SAMPLES = vectors("pipeline").description["samples"] if available("pipeline") else []


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    images = {file.name: file.read_bytes() for file in reference_images().glob("val_*.jpg")}
    write_split(root, "train2017", (FOLDER / "pipeline_annotations.json").read_text("utf-8"), images)
    return read_split(root, "train2017")


def transform_of(sample) -> ImageTransform:
    """The transform that the vectors' draws amount to."""
    original = tuple(sample["ori_shape"])
    if "scale" in sample and "flip" not in sample:
        return eval_transform(original, DetectionConfig(test_short_side=min(sample["scale"])))

    def resized(size, scale):
        return tuple(rescaled(np.array(size), min(scale), max(scale)).tolist())

    if "first_scale" not in sample:
        return ImageTransform(original, sample["flip"], None, None, resized(original, sample["scale"]))
    height, width, top, left = sample["crop_height_width_top_left"]
    final = resized((height, width), sample["second_scale"])
    return ImageTransform(
        original, sample["flip"], resized(original, sample["first_scale"]), (top, left, height, width), final
    )


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["key"])
def test_arrays_of_mmdetection(sample, split):
    arrays, key = vectors("pipeline"), sample["key"]
    index, transform = split.files.index(sample["file"]), transform_of(sample)
    pixels = decode((reference_images() / sample["file"]).read_bytes())
    image = transform_image(pixels, transform)
    assert pixels.shape[:2] == split.size(index) and list(image.shape[:2]) == sample["img_shape"]
    assert np.abs(np.array(transform.scale_factors * 2) - sample["scale_factor"]).max() < 1e-6
    if f"{key}/image" in arrays:
        assert (image == arrays[f"{key}/image"]).all()
    canvas = np.zeros((3, *sample["pad_shape"]), np.float32)
    place(image, canvas)
    corner = arrays[f"{key}/normalized_corner"]
    assert np.abs(canvas.transpose(1, 2, 0)[-len(corner) :, -corner.shape[1] :] - corner).max() < 1e-6
    if f"{key}/boxes" in arrays:
        check_ground_truth(split, index, transform, arrays, sample)


def check_ground_truth(split, index, transform, arrays, sample):
    objects, key = split.objects(index), sample["key"]
    own = np.flatnonzero(~objects.crowd)
    boxes, kept = transform_boxes(objects.boxes[own], transform)
    own = own[kept]
    assert boxes.shape == arrays[f"{key}/boxes"].shape
    assert np.abs(boxes - arrays[f"{key}/boxes"]).max(initial=0) < 1e-4
    assert (objects.labels[own] == arrays[f"{key}/labels"]).all()
    rows, columns = source_pixels(transform)
    height, width = transform.original
    encoded = [split.segmentations.encoded(mask, height, width)["counts"] for mask in objects.masks[own]]
    bitmaps = np.array([decode_columns(counts, height, 0, width) for counts in encoded])
    masks = bitmaps[:, rows][:, :, columns]
    expected = np.unpackbits(arrays[f"{key}/masks_packed"], -1)[..., : sample["mask_shape"][2]]
    assert masks.shape == expected.shape and (masks == expected).all()
    whole = crop_masks(masks, boxes)
    for i, box in enumerate(boxes):
        crop, frame = crop_mask(bitmaps[i], rows, columns, box)
        assert (crop == whole[0][i]).all() and (np.float32(frame) == whole[1][i]).all()


def test_kept_annotations(split):
    for image, expected in vectors("pipeline").description["annotations_kept"].items():
        objects = split.objects(split.image_ids.tolist().index(int(image)))
        crowd = objects.crowd
        assert (objects.boxes[~crowd] == np.float32(expected["boxes"])).all()
        assert objects.labels[~crowd].tolist() == expected["labels"]
        assert (objects.boxes[crowd] == np.float32(expected["crowd"]).reshape(-1, 4)).all()


def test_masks_are_resized_as_opencv_resizes_images():
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width, *sides = rng.integers(3, 700, 6).tolist()
        first, size = tuple(sides[:2]), tuple(sides[2:])
        top, left = (int(rng.integers(0, side)) for side in first)
        crop = (top, left, int(rng.integers(1, first[0] - top + 1)), int(rng.integers(1, first[1] - left + 1)))
        mask = rng.integers(0, 2, (height, width), np.uint8)
        expected = cv2.resize(mask[:, ::-1], first[::-1], interpolation=cv2.INTER_NEAREST)
        expected = expected[top : top + crop[2], left : left + crop[3]]
        expected = cv2.resize(expected, size[::-1], interpolation=cv2.INTER_NEAREST)
        rows, columns = source_pixels(ImageTransform((height, width), True, first, crop, size))
        assert (mask[rows][:, columns] == expected).all()


def test_draws_cover_the_recipe():
    config, count = DetectionConfig(), 4000
    sizes = np.random.default_rng(0).integers(200, 900, (count, 2))
    drawn = draw_transforms(sizes, np.random.default_rng(1).random((count, DRAWS)), config)
    assert abs(drawn.flip.mean() - 0.5) < 0.03 and abs(drawn.cropped.mean() - 0.5) < 0.03
    assert drawn.sizes.max() == 1333
    plain = drawn.sizes[~drawn.cropped]
    unlimited = plain.max(1) < 1333
    shares = np.unique(plain[unlimited].min(1), return_counts=True)
    assert shares[0].tolist() == list(range(480, 801, 32)) and shares[1].min() > 0.05 * unlimited.sum()
    first, crop = drawn.first[drawn.cropped], drawn.crop[drawn.cropped]
    assert set(first.min(1)[first.max(1) < 1333].tolist()) == {400, 500, 600}
    assert (crop[:, :2] >= 0).all() and (crop[:, :2] + crop[:, 2:] <= first).all()
    assert (crop[:, 2:] >= np.minimum(first, 384)).all() and (crop[:, 2:] <= np.minimum(first, 600)).all()
    assert (crop[:, 2] == 600).any() and (crop[:, 2] == 384).any() and (crop[:, 0] + crop[:, 2] == first[:, 0]).any()
    # A single one is the row of the columns.
    assert drawn[5].size == tuple(drawn.sizes[5]) and (drawn[5].crop is None) == (not drawn.cropped[5])


def test_a_crop_drops_boxes_and_may_leave_none():
    transform = ImageTransform((100, 100), False, (100, 100), (50, 50, 40, 40), (80, 80))
    boxes, kept = transform_boxes(np.float32([[0, 0, 50, 50], [40, 60, 60, 95]]), transform)
    assert kept.tolist() == [False, True] and boxes.tolist() == [[0, 20, 20, 80]]
    boxes, kept = transform_boxes(np.float32([[0, 0, 9, 9]]), transform)
    assert boxes.shape == (0, 4) and not kept.any()
