"""Objects in files: batches of one canvas, in the order of the files, from detectors with masks and without."""

import cv2
import mindspore as ms
import numpy as np
import pytest
from support.small_detector import CONFIG

from msg_ms.config import load_config
from msg_ms.data.pipeline import parts_of_groups
from msg_ms.engine.predictor import PredictOptions, Unreadable
from msg_ms.tasks import build_task

SIZES = [(64, 32), (40, 64), (64, 30), (30, 64), (50, 50), (64, 24)]  # of two canvases


@pytest.fixture(autouse=True)
def eager():
    """Run operators one by one, without compilation."""
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, draws = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    files = [folder / f"{i}.png" for i in range(len(SIZES))]
    for file, size in zip(files, SIZES, strict=True):
        cv2.imwrite(str(file), draws.integers(0, 256, (*size, 3), np.uint8))
    files.insert(2, folder / "broken.png")
    files[2].write_bytes(b"no image")
    files.insert(5, folder / "missing.png")
    cut = files[1].read_bytes()
    files.insert(6, folder / "cut.png")  # its header is whole
    files[6].write_bytes(cut[: len(cut) // 2])
    return files


def predictor(folder, batch_size, **keys):
    (folder / "small.yaml").write_text(CONFIG, encoding="utf-8")
    canvases = [[64, 32], [64, 64]]
    config = load_config(folder / "small.yaml", DETECTION__CANVASES=canvases, MODEL__RCNN__SCORE_THR=0.0, **keys)
    task = build_task(config)
    model = task.build_model().set_train(False)
    return task.predictor(model, {}, PredictOptions(batch_size=batch_size, score_thr=0.0))


@pytest.mark.slow
def test_batches_of_one_canvas_find_what_single_images_do(files, tmp_path):
    own, calls = predictor(tmp_path, 3), []
    detect = own.model.predict

    def counted(images, *others):
        calls.append(images.shape)
        return detect(images, *others)

    own.model.predict = counted
    together = list(own.predict(files))
    assert calls == [(3, 3, 64, 32), (3, 3, 64, 64), (3, 3, 64, 64)]
    own.batch_size = 1
    alone = list(own.predict(files))
    assert [result.file for result in together] == [result.file for result in alone] == files
    reasons = {result.file.name: result.reason for result in together if isinstance(result, Unreadable)}
    assert set(reasons) == {"broken.png", "missing.png", "cut.png"} and reasons["missing.png"].startswith(
        "No such file"
    )
    for one, other in zip(together, alone, strict=True):
        if not isinstance(one, Unreadable):
            np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
            assert len(one.boxes) and one.masks.shape == (len(one.boxes), *one.image.shape[:2])


def test_a_detector_without_masks_predicts_none(files, tmp_path):
    own, broken = predictor(tmp_path, 2, MODEL__RCNN__MASKS=False), files[2]
    first, unreadable, array = own.predict([files[0], broken, cv2.imread(str(files[0]))[..., ::-1]])
    assert (first.file, unreadable.file, array.file) == (files[0], broken, None) and isinstance(unreadable, Unreadable)
    np.testing.assert_array_equal(first.boxes, array.boxes)
    for found in (first, array):
        assert len(found.boxes) and found.masks is None and max(found.plot().size) == 480
        assert set(own.record(found)["objects"][0]) == {"label", "class", "name", "score", "box"}


def test_parts_have_samples_of_one_group():
    parts = parts_of_groups(np.array([1, 0, 1, 1, 0, 7]), 2)
    assert [part.tolist() for part in parts] == [[1, 4], [0, 2], [3], [5]]
