"""ONNX files of detectors in ONNX Runtime and OpenVINO, against mmdetection's detections and the model's."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import mindspore as ms
import numpy as np
import pytest
from conftest import ROOT
from mindspore import Tensor
from support import small_detector
from support.detection import vectors
from support.detection_model import detector, image_sizes, random_detector

import msg_ms
from msg_ms import UserError
from msg_ms.boxes.masks import paste_masks
from msg_ms.boxes.rle import decode_rle
from msg_ms.checkpoint import parameters_by_name, to_numpy, write_checkpoint
from msg_ms.config import load_config
from msg_ms.data.pixels.detection_transforms import eval_transform, place, transform_image
from msg_ms.deploy import DetectorExporter, ExportOptions
from msg_ms.deploy.detector_check import INPUTS, OUTPUTS, DetectorReference
from msg_ms.models.detection.build import build_detector

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
build_onnx_detector = pytest.importorskip("msg_ms.deploy.onnx_detector").build_onnx_detector
engines = pytest.importorskip("msg_ms.deploy.engines").onnx_engines(onnxruntime)

BOX, SCORE = 1e-3, 1e-5  # pixels, probability
STANDARD = {"NonMaxSuppression", "RoiAlign", "TopK", "GatherND", "ScatterND", "ScatterElements", "NonZero"}


@pytest.fixture(autouse=True)
def without_graphs():
    ms.set_context(mode=ms.PYNATIVE_MODE)


def detections(outputs, image):
    """Boxes, scores, labels and masks of an image's used slots."""
    *values, used = (output[image] for output in outputs)
    return [value[used] for value in values]


@pytest.mark.parametrize("engine", engines, ids=lambda engine: engine.name.split()[0])
def test_detections_are_mmdetections(engine):
    images, reference, (shapes, _, factors) = (
        vectors("detector")["images"],
        vectors("inference"),
        image_sizes("inference"),
    )
    model = detector()
    proto = build_onnx_detector(model, images.shape[2:], None, 17, {})
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} == {""}
    assert {node.op_type for node in proto.graph.node} >= STANDARD
    assert [value.name for value in proto.graph.input] == list(INPUTS)
    assert [value.name for value in proto.graph.output] == list(OUTPUTS)
    run, probabilities = engine.load(proto.SerializeToString()), []
    for rows in ([0, 1], [1], [1, 0, 1]):
        outputs = run([value[rows] for value in (images, shapes, factors)])
        for place_, image in enumerate(rows):
            boxes, scores, labels, masks = detections(outputs, place_)
            assert np.abs(boxes - reference[f"img{image}.bboxes"]).max() < BOX
            assert np.abs(scores - reference[f"img{image}.scores"]).max() < SCORE
            assert (labels == reference[f"img{image}.labels"]).all()
            probabilities.append(masks)
    assert np.abs(np.concatenate(probabilities[:2]) - reference["mask_prob"]).max() < SCORE
    model.settings = replace(model.settings, masks=False)
    proto = build_onnx_detector(model, images.shape[2:], 1, 17, {})
    assert not [tensor.name for tensor in proto.graph.initializer if "mask" in tensor.name]
    boxes, *_, used = engine.load(proto.SerializeToString())([value[1:] for value in (images, shapes, factors)])
    assert np.abs(boxes[used] - reference["img1.bboxes"]).max() < BOX


def test_another_operator_set_and_sides_that_need_padding():
    model, (height, width) = detector(), (90, 131)
    inputs = [np.random.RandomState(0).standard_normal((1, 3, height, width)).astype(np.float32)]
    inputs += [np.array([[height, width]], np.float32), np.full((1, 4), 1.5, np.float32)]
    found = [output.asnumpy() for output in model(*map(Tensor, inputs))]
    proto = build_onnx_detector(model, (height, width), 1, 20, {})
    outputs = engines[0].load(proto.SerializeToString())(inputs)
    assert found[4].any() and [output.dtype for output in outputs] == [output.dtype for output in found]
    for own, expected, limit in zip(outputs, found, (BOX, SCORE, 0.5, SCORE, 0.5), strict=True):
        assert np.abs(own.astype(np.float32) - expected).max() < limit


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def small(folder, *options: str):
    """The configuration and a checkpoint of a small detector with drawn weights."""
    (folder / "small.yaml").write_text(small_detector.CONFIG, encoding="utf-8")
    config = load_config(folder / "small.yaml", options)
    model = random_detector(build_detector(config.model), 0)
    write_checkpoint(folder / "small.ckpt", to_numpy(parameters_by_name(model.get_parameters())))
    return config, folder / "small.ckpt"


def test_the_documented_script_pastes_the_masks(tmp_path, monkeypatch):
    sizes = {"TEST_SHORT_SIDE": "60", "TEST_LONG_SIDE": "150", "CANVASES": "[[160,160]]"}
    config, checkpoint = small(tmp_path, *(word for key in sizes for word in (f"DETECTION.{key}", sizes[key])))
    exported = DetectorExporter(config).export(
        checkpoint,
        ExportOptions(tmp_path / "detector.onnx", dynamic_batch=True, img_size=(96, 160)),
        print,
    )
    assert re.match(r"ONNX Runtime [\d.]+: 18 of 18 detections equal the model's \(boxes within \d", exported.checked)
    assert exported.inputs.startswith("images, float32 batch,3,96,160") and exported.outputs == ", ".join(OUTPUTS)
    monkeypatch.chdir(tmp_path)
    draws = np.random.RandomState(3)
    image = cv2.resize(draws.randint(0, 256, (10, 12, 3)).astype(np.uint8), (200, 170), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite("street.png", image)
    (script,) = (block for block in blocks(ROOT / "docs" / "export.md") if "street.jpg" in block)
    shown, results = script.replace("street.jpg", "street.png").replace("    print(", "    show("), []
    # The mask is a variable of the script's loop.
    names = {"show": lambda label, score, box, pixels: results.append((label, score, box, names["mask"]))}
    exec(shown, names)
    transform = eval_transform(image.shape[:2], config.detection).within((96, 160))
    pixels = np.zeros((1, 3, 96, 160), np.float32)
    place(transform_image(image[:, :, ::-1].copy(), transform), pixels[0])
    inputs = [pixels, np.array([transform.size], np.float32), np.array([transform.scale_factors * 2], np.float32)]
    boxes, scores, labels, masks = detections(engines[0].load("detector.onnx")(inputs), 0)
    assert len(results) == len(boxes) > 3
    pasted = paste_masks(masks, boxes, *image.shape[:2])
    for i, (label, score, box, mask) in enumerate(results):
        assert label == labels[i] and abs(score - scores[i]) < SCORE and np.abs(box - boxes[i]).max() < BOX
        assert (decode_rle(pasted[i]).astype(bool) != mask).sum() <= 2
    assert any(mask.any() for *_, mask in results)


def test_other_detections_are_found_by_the_check():
    draws = np.random.RandomState(0)
    boxes = draws.uniform(0, 100, (2, 4, 4)).astype(np.float32)
    scores = np.sort(draws.uniform(0.1, 1, (2, 4)).astype(np.float32))[:, ::-1]
    labels, used = draws.randint(0, 3, (2, 4)), np.array([[True] * 4, [True] * 3 + [False]])
    outputs = boxes, scores, labels, draws.uniform(0, 1, (2, 4, 28, 28)).astype(np.float32), used
    reference = DetectorReference((np.zeros((2, 1)),), outputs, (2,))
    assert reference.check(lambda inputs: outputs, "E").startswith("E: 7 of 7 detections equal the model's (boxes")
    swapped = [value[:, [1, 0, 2, 3]] for value in outputs]
    assert "7 of 7" in reference.check(lambda inputs: swapped, "E")
    for place_, change in ((0, 0.02), (1, 2e-4), (2, 1), (3, 2e-4), (4, True)):
        wrong = [value.copy() for value in outputs]
        wrong[place_][1, 1] = wrong[place_][1, 1] + change if place_ < 4 else False
        with pytest.raises(UserError, match="1 of 7 detections in E differ"):
            reference.check(lambda inputs, wrong=wrong: wrong, "E")
        assert "6 of 7" in reference.check(lambda inputs, wrong=wrong: wrong, "E", misses=0.2)
    high = float(scores[0, 1])
    assert " of " in reference.check(lambda inputs: outputs, "E", threshold=high)
    none = replace(reference, outputs=(*outputs[:4], np.zeros_like(used)))
    with pytest.raises(UserError, match="7 of 7 detections"):
        none.check(lambda inputs: outputs, "E")


def drawn_images(count, canvas):
    """Images of coloured discs and boxes, of several sizes, on a canvas: the inputs of the model."""
    draws = np.random.RandomState(5)
    images, sizes = np.zeros((count, 3, *canvas), np.float32), np.zeros((count, 2), np.float32)
    for image, size in zip(images, sizes, strict=True):
        size[:] = [side - draws.randint(side // 3) for side in canvas]
        height, width = (int(side) for side in size)
        pixels = cv2.resize(draws.randint(0, 256, (5, 7, 3)).astype(np.uint8), (width, height))
        for _ in range(6):
            colour = draws.randint(0, 256, 3).tolist()
            x, y, side = draws.randint(width), draws.randint(height), draws.randint(10, 50)
            if draws.rand() < 0.5:
                cv2.circle(pixels, (x, y), side // 2, colour, -1)
            else:
                cv2.rectangle(pixels, (x, y), (x + side, y + side), colour, -1)
        place(pixels, image)
    factors = np.tile(draws.uniform(0.5, 2, (count, 2)).astype(np.float32), 2)
    return images, sizes, factors


def gaps(own, wanted):
    """Differences of boxes, scores, labels and any masks of the pairs of equal detections.

    Near ties may have another order, and of several with the lowest score any may fill the last slots.
    """
    pairs, free, lowest = [], list(range(len(own[0]))), wanted[1].min(initial=1) + SCORE
    for values in zip(*wanted, strict=True):
        for i in free:
            gap = [np.abs(column[i] - value).max() for column, value in zip(own, values, strict=True)]
            if gap[0] < BOX and gap[1] < SCORE and gap[2] == 0:
                pairs.append(gap)
                free.remove(i)
                break
        else:
            assert values[1] < lowest
    assert len(own[0]) == len(wanted[0]) and (own[1][free] < lowest).all()
    return np.array(pairs).reshape(-1, len(own))


def check_equal(model, canvas, batch, inputs):
    """The detections of every engine equal those of the model."""
    count = len(inputs[0])
    parts = [[value[i : i + batch] for value in inputs] for i in range(0, count, batch)]
    expected = [[output.asnumpy() for output in model(*map(Tensor, part))] for part in parts]
    found = sum(outputs[-1].sum() for outputs in expected)
    assert found > count
    content = build_onnx_detector(model, canvas, batch, 17, {}).SerializeToString()
    for engine in engines:
        run, worst = engine.load(content), 0.0
        for part, outputs in zip(parts, expected, strict=True):
            own = run(part)
            for i in range(batch):
                worst = np.maximum(worst, gaps(detections(own, i), detections(outputs, i)).max(0, initial=0))
        print(engine.name, found, "detections; boxes, scores, labels, masks:", worst)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "masks"), [*((seed, True) for seed in range(5)), (5, False)])
def test_drawn_images_with_random_weights(seed, masks):
    config = load_config(ROOT / "configs/coco/digits_scenes.yaml", ["MODEL.RCNN.MASKS", str(masks)])
    model = random_detector(build_detector(config.model), seed)
    check_equal(model, (128, 160), 4, drawn_images(20, (128, 160)))


@pytest.mark.slow
def test_the_papers_detector():
    model = random_detector(msg_ms.create_detector("cascade_mask_rcnn_msg_tiny", score_threshold=0.0), 0)
    check_equal(model, (160, 192), 1, drawn_images(2, (160, 192)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x.onnx", dict(img_size=(100, 128)), "--img-size 100 128: a canvas has sides that are multiples of 32"),
        ("x.onnx", dict(softmax=True), "--softmax is for classifiers"),
        ("x.onnx", dict(opset=16), "--opset 16: the installed onnx writes 17 to"),
        ("x.mindir", dict(dynamic_batch=True), "--dynamic-batch is for classifiers and for .onnx files"),
    ],
)
def test_options_that_do_not_suit_a_detector(name, options, message, tmp_path):
    config, checkpoint = small(tmp_path)
    with pytest.raises(UserError, match=message):
        DetectorExporter(config).export(checkpoint, ExportOptions(tmp_path / name, **options), print)
    assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_both_formats_from_the_command_line(command, tmp_path):
    small(tmp_path)
    flags = ["--cfg", "small.yaml", "--resume", "small.ckpt", "--device-target", "CPU", "--output"]
    shown = command("tools/export.py", *flags, "small.onnx", "--dynamic-batch").stdout
    assert "input    images, float32 batch,3,64,64; img_shapes (B, 2); scale_factors (B, 4)\noutput   boxes," in shown
    assert "checked  ONNX Runtime" in shown and "18 of 18 detections equal the model's" in shown
    shown = command("tools/export.py", *flags, "small.mindir", "--batch-size", 2).stdout
    assert re.search(r"checked  MindSpore [\d.]+: (\d+) of \1 detections equal", shown)
