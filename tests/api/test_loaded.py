"""msg_ms.load: predictions, evaluation and export from one file, for both tasks."""

import cv2
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image
from support import small_detector
from support.small_run import CONFIG, write_images
from support.stored_model import write_model

import msg_ms
from msg_ms import UserError
from msg_ms.checkpoint import parameters_by_name, write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load")
    write_images(folder)
    write_model(folder / "best.ckpt", CONFIG, '["0", "1", "2"]')
    return folder


@pytest.fixture(scope="module")
def classifier(folder):
    return msg_ms.load(folder / "best.ckpt")


def test_predictions_of_files_folders_arrays_and_pictures_are_the_same(classifier, folder):
    assert classifier.classes == ["0", "1", "2"]
    assert repr(classifier) == f"TrainedModel(small, 3 classes, '{folder}/best.ckpt')"
    found = classifier.predict(folder / "data" / "val")
    files = sorted((folder / "data" / "val").rglob("*.png"))
    assert [result.file for result in found] == files and len(files) == 9
    pictures = [Image.open(file) for file in files]
    arrays = [cv2.imread(str(file))[..., ::-1] for file in files]
    for others in (pictures, arrays, iter(map(str, files))):
        again = classifier.predict(others)
        assert all(np.array_equal(a.probabilities, b.probabilities) for a, b in zip(found, again, strict=True))
    few = classifier.predict([files[3]], batch_size=2)
    assert np.allclose(few[0].probabilities, found[3].probabilities, atol=1e-6)
    one = found[0]
    assert one.probabilities.sum() == pytest.approx(1) and one.label == int(one.probabilities.argmax())
    assert one.name == classifier.classes[one.label] and one.probability == one.probabilities.max()
    assert one.plot().size == (320, 344) and f"{files[0]}: {one.probability:.1%} {one.name}" in repr(one)
    # The model itself is not the one that was prepared: it has its original parameters.
    assert "head.weight" in parameters_by_name(classifier.model.get_parameters())
    logits = classifier.model(np.zeros((1, 3, 32, 32), np.float32))
    assert logits.shape == (1, 3) and isinstance(logits, Tensor)
    assert classifier.predict([]) == []


def test_grey_arrays_have_three_channels(classifier):
    grey = np.random.RandomState(0).randint(0, 256, (40, 36), np.uint8)
    one, other = classifier.predict([grey, np.stack([grey] * 3, -1)])
    assert np.array_equal(one.probabilities, other.probabilities) and one.file is None


def test_evaluation_counts_what_predictions_say(classifier, folder):
    metrics = classifier.evaluate(folder / "data")
    hits = [result.name == result.file.parent.name for result in classifier.predict(folder / "data" / "val")]
    assert metrics.values["top1"] == pytest.approx(100 * np.mean(hits)) and metrics.count == 9
    with pytest.raises(UserError, match="nothing"):
        classifier.evaluate(folder / "nothing")


def test_export_writes_a_checked_file(classifier, folder):
    exported = classifier.export(folder / "small.mindir", softmax=True, batch_size=2)
    assert exported.inputs == "images, float32 2,3,32,32" and (folder / "small.mindir").stat().st_size > 10_000
    assert "largest difference" in exported.checked


def test_a_dictionary_overrides_the_file_but_not_its_model(folder):
    model = msg_ms.load(folder / "best.ckpt", {"TEST": {"CROP": False}, "DATA.BATCH_SIZE": 2}, "CPU")
    assert (model.config.test.crop, model.config.data.batch_size, model.config.device_target) == (False, 2, "CPU")
    with pytest.raises(UserError, match=r"MODEL.NUM_CLASSES is 5 there and 3 in the checkpoint"):
        msg_ms.load(folder / "best.ckpt", {"MODEL": {"NUM_CLASSES": 5}})
    write_checkpoint(folder / "old.ckpt", {"norm.gamma": np.ones(3, np.float32)})
    with pytest.raises(UserError, match=r"old.ckpt stores no configuration"):
        msg_ms.load(folder / "old.ckpt")


def test_files_that_can_not_be_read_are_named(classifier, folder):
    (folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"can't read .*broken.png: "):
        classifier.predict([folder / "broken.png"])
    with pytest.raises(UserError, match=r"no such file or folder: .*missing.png"):
        classifier.predict(folder / "missing.png")


@pytest.mark.slow
def test_a_detector_finds_boxes_and_masks(tmp_path):
    small_detector.write_data(tmp_path, train=1, val=2)
    write_model(tmp_path / "best.ckpt", small_detector.CONFIG, '["square", "disc"]')
    model = msg_ms.load(tmp_path / "best.ckpt")
    files = sorted((tmp_path / "val2017").iterdir())
    found = model.predict(tmp_path / "val2017", score_thr=0.0)
    again = model.predict([Image.open(file) for file in files], score_thr=0.0)
    assert model.classes == ["square", "disc"] and [result.file for result in found] == files
    for one, other in zip(found, again, strict=True):
        height, width = one.image.shape[:2]
        count = len(one.boxes)
        assert one.boxes.shape == (count, 4) and one.scores.shape == one.labels.shape == (count,)
        assert one.masks.shape == (count, height, width) and one.masks.dtype == bool
        assert np.array_equal(one.boxes, other.boxes) and len(one.classes) == count
        assert max(one.plot().size) == 480
    assert not len(model.predict(files[0], score_thr=1.0)[0].boxes)
    assert "bbox_mAP" in model.evaluate(tmp_path).values
