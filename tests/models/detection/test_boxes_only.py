"""A detector without masks against the same weights with masks: outputs, losses and gradients bit for bit."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor, nn
from mindspore.nn.utils import no_init_parameters
from support.detection import TABLE, vectors
from support.detection_model import detector, training_inputs
from support.tiny_detector import HEIGHT, WIDTH, tiny_batch, tiny_detector

from msg_ms import UserError
from msg_ms.boxes.batches import DetectionBatch
from msg_ms.checkpoint import load_for_inference, parameters_by_name, to_numpy, write_checkpoint
from msg_ms.config import load_config
from msg_ms.data.pipeline import arrays_of
from msg_ms.engine.train_step import LossAndGradients, arguments
from msg_ms.models.detection.build import build_detector
from msg_ms.models.detection.cascade_rcnn import MASK_HEADS
from msg_ms.models.detection.detection_loss import BOX_LOSS_NAMES, LOSS_NAMES, DetectionLoss
from msg_ms.models.detection.pretrained import load_detector

MODES = [ms.PYNATIVE_MODE, pytest.param(ms.GRAPH_MODE, marks=pytest.mark.slow)]


@pytest.fixture
def pair():
    """Return a detector with masks and one without, with the same weights."""
    models = (
        tiny_detector(score_threshold=0.0, drop_path_rate=0.0),
        tiny_detector(masks=False, score_threshold=0.0, drop_path_rate=0.0),
    )
    weights = to_numpy(parameters_by_name(models[0].get_parameters()))
    own = parameters_by_name(models[1].get_parameters())
    assert list(own) == [name for name in weights if not name.startswith(MASK_HEADS)]
    for name, parameter in own.items():
        parameter.set_data(Tensor(weights[name]))
    return models


def without_masks(batch: DetectionBatch) -> DetectionBatch:
    return batch._replace(gt=batch.gt._replace(masks=None, frames=None))


class BoxLosses(nn.Cell):
    """The losses of a detector with masks, with the sum of those that one without masks has as the first."""

    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.losses = DetectionLoss(model)
        self.kept = tuple(1 + LOSS_NAMES.index(name) for name in BOX_LOSS_NAMES)

    def construct(self, *batch):
        losses = self.losses(*batch)
        total, kept = 0.0, ()
        for i in self.kept:
            total, kept = total + losses[i], (*kept, losses[i])
        return (total, *kept)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_weights_find_the_same_boxes(mode, pair):
    ms.set_context(mode=mode)
    image = np.random.RandomState(0).standard_normal((2, 3, HEIGHT, WIDTH)).astype(np.float32)
    sizes = np.float32([[HEIGHT, WIDTH], [HEIGHT - 4, WIDTH - 5]])
    found = [model.set_train(False).predict(image, sizes, sizes, np.ones((2, 4))) for model in pair]
    for with_masks, alone in zip(*found, strict=True):
        assert len(alone.boxes) > 0 and len(with_masks.masks) == len(alone.boxes) and alone.masks is None
        for one, other in zip(with_masks[:3], alone[:3], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_losses_and_gradients_are_those_of_the_detector_with_masks(mode, pair):
    ms.set_context(mode=mode)
    batch, results = tiny_batch(pair[0]), []
    for model, cell, inputs in zip(pair, (BoxLosses, DetectionLoss), (batch, without_masks(batch)), strict=True):
        parameters = [p for p in model.trainable_params() if not p.name.startswith(MASK_HEADS)]
        step = LossAndGradients(cell(model), ParameterTuple(parameters))
        results.append(step(*arguments(inputs)))
    (losses, gradients), (own, own_gradients) = results
    assert len(own) == 1 + len(BOX_LOSS_NAMES) and float(own[0].asnumpy()) > 0
    assert len(gradients) == len(own_gradients) == len(pair[1].trainable_params())
    for one, other in zip((*losses, *gradients), (*own, *own_gradients), strict=True):
        np.testing.assert_array_equal(one.asnumpy(), other.asnumpy())
    names = [p.name for p, g in zip(pair[1].trainable_params(), own_gradients, strict=True) if np.any(g.asnumpy())]
    assert any("backbone" in name for name in names) and any("bbox_head.2" in name for name in names)


def test_a_batch_without_masks_is_restored_from_its_arrays():
    batch = without_masks(tiny_batch(tiny_detector(masks=False)))
    again = DetectionBatch.of(arrays_of(batch), masks=False)
    assert again.gt.masks is None and again.noise is batch.noise and again.rpn.deltas is batch.rpn.deltas
    zeros = DetectionBatch.zeros(2, (HEIGHT, WIDTH), 3, 24, 30, 16, masks=False)
    assert [array.shape for array in arrays_of(zeros)] == [array.shape for array in arrays_of(batch)[:-1]]


def test_losses_of_boxes_match_mmdetection():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    reference, case = vectors("detector"), "train_bn"
    inputs = list(training_inputs(case))
    del inputs[5:7]  # masks and frames
    _, *losses = DetectionLoss(detector(masks=False)).set_train()(*inputs)
    for name, own in zip(BOX_LOSS_NAMES, losses, strict=True):
        keys = [f"{case}/{name}"] if name.startswith("s") else reference.match(rf"{case}/{name}\.(\d+)").values()
        wanted = sum(reference[key].reshape(1) for key in keys)
        TABLE.check("detector without masks, losses", own.reshape(1), wanted, "loss")


def test_the_configuration_and_the_name_select_it():
    config = load_config(None, TASK="detection", MODEL__RCNN__MASKS=False, MODEL__RCNN__FC_CHANNELS=8)
    with no_init_parameters():
        model = build_detector(config.model)
    assert not model.settings.masks and not any(
        name.startswith(MASK_HEADS) for name in parameters_by_name(model.get_parameters())
    )
    with pytest.raises(UserError, match="masks=1: must be True or False"):
        tiny_detector(masks=1)


def test_checkpoints_with_and_without_masks_are_told_apart(tmp_path):
    with_masks, alone = tiny_detector(), tiny_detector(masks=False)
    files = {model: tmp_path / f"{model.settings.masks}.ckpt" for model in (with_masks, alone)}
    values = {model: to_numpy(parameters_by_name(model.get_parameters())) for model in files}
    for model, file in files.items():
        write_checkpoint(file, values[model])

    def weights(model):
        return to_numpy(parameters_by_name(model.get_parameters()))

    left_out = "the mask heads are left out, as MODEL.RCNN.MASKS is False"
    for load in (lambda model, path: load_for_inference(model, path)[0], load_detector):
        model = tiny_detector(masks=False)
        (line,) = load(model, files[with_masks])
        assert line.endswith(left_out)
        assert all(np.array_equal(value, values[with_masks][name]) for name, value in weights(model).items())
        assert load(model, files[alone]) == []
    with pytest.raises(UserError, match=r"False.ckpt is a detector without masks: pass --opts MODEL.RCNN.MASKS False"):
        load_for_inference(with_masks, files[alone])
    (line,) = load_detector(with_masks, files[alone])
    assert line == "the mask heads keep their initial values: the file is that of a detector without masks"
    for name, value in weights(with_masks).items():
        expected = values[with_masks if name.startswith(MASK_HEADS) else alone][name]
        assert np.array_equal(value, expected)
