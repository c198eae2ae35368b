"""The detector's loss cell on a tiny model: precision, recomputation, stochastic depth, and unused slots."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor
from support.tiny_detector import HEIGHT, WIDTH, tiny_batch, tiny_detector

from msg_ms import UserError, optimize_for_inference
from msg_ms.engine.train_step import LossAndGradients, arguments
from msg_ms.models.detection.conv import ConvModule
from msg_ms.models.detection.detection_loss import LOSS_NAMES, DetectionLoss
from msg_ms.models.precision import set_precision
from msg_ms.ops import bfloat16_supported

pytestmark = pytest.mark.usefixtures("eager")  # the tests of graphs compile


def losses(model, batch) -> np.ndarray:
    return np.array([float(loss.asnumpy()) for loss in DetectionLoss(model).set_train()(*arguments(batch))])


def test_unused_slots_do_not_enter_batch_statistics():
    rng = np.random.RandomState(0)
    x, dy = (rng.standard_normal((5, 4, 3, 2)).astype(np.float32) for _ in range(2))
    used = np.array([True, False, True, True, False])
    dy[~used] = 0
    found = []
    for inputs, outputs, mask in ((x, dy, Tensor(used)), (x[used], dy[used], None)):
        ms.set_seed(0)
        module = ConvModule(4, 6, 1, batch_norm=True, relu=True).set_train()
        module.conv.weight.set_data(Tensor(np.random.RandomState(1).standard_normal((6, 4, 1, 1)).astype(np.float32)))
        weight = Tensor(np.repeat(outputs, 2, 1)[:, :6])
        y, gradients = ms.value_and_grad(
            lambda x, module=module, mask=mask, weight=weight: (module(x, mask) * weight).sum(),
            None,
            list(module.trainable_params()),
        )(Tensor(inputs))
        statistics = [module.bn.moving_mean.asnumpy(), module.bn.moving_variance.asnumpy()]
        found.append([y.asnumpy(), *(g.asnumpy() for g in gradients), *statistics])
    for padded, alone in zip(*found, strict=True):
        assert np.abs(padded - alone).max() <= 1e-5 * np.abs(alone).max()


def test_a_detector_optimized_for_inference_detects_the_same():
    model, rng = tiny_detector(score_threshold=0.0).set_train(False), np.random.RandomState(0)
    image = Tensor(rng.standard_normal((1, 3, HEIGHT - 4, WIDTH)).astype(np.float32))
    inputs = image, *arguments((np.float32([[HEIGHT - 4, WIDTH - 5]]), np.ones((1, 4), np.float32)))
    before = [x.asnumpy() for x in model(*inputs)]
    optimize_for_inference(model, strassen=True)
    after = [x.asnumpy() for x in model(*inputs)]
    assert before[-1].sum() == after[-1].sum() > 0
    assert np.abs(before[1] - after[1]).max() <= 1e-5 and np.abs(before[0] - after[0]).max() <= 1e-2
    with pytest.raises(UserError, match="training needs"):
        model.set_train()


@pytest.mark.skipif(not bfloat16_supported(), reason="this CPU has no bfloat16 instructions")
def test_a_detector_in_bfloat16_is_close_to_single_precision():
    model, rng = tiny_detector().set_train(False), np.random.RandomState(0)
    image = Tensor(rng.standard_normal((2, 3, HEIGHT - 4, WIDTH)).astype(np.float32))
    size = model.settings.box_size, model.settings.mask_size
    boxes, masks = (Tensor(rng.standard_normal((3, 16, s, s)).astype(np.float32)) for s in size)
    box_head, mask_head = model.roi_head.bbox_head[1], model.roi_head.mask_head[2]
    for norm in (conv.bn for conv in box_head.shared_convs):
        for parameter in (norm.moving_mean, norm.moving_variance, norm.gamma, norm.beta):
            parameter.set_data(Tensor((0.5 + rng.random_sample(parameter.shape)).astype(np.float32)))

    def outputs():
        found = (*(x for level in model.pyramid(image) for x in level), *box_head(boxes), mask_head(masks))
        return [x.asnumpy() for x in found]

    before, names = outputs(), {p.name for p in model.get_parameters()}
    optimize_for_inference(model, strassen=True, precision="bfloat16")
    for a, b in zip(before, outputs(), strict=True):
        assert 0 < np.abs(a - b).max() <= 0.03 * np.abs(a).max()
    packed = [p.name for p in model.get_parameters()]
    assert len(packed) == len(set(packed))
    assert {"rpn_head.rpn_conv.weight", "neck.fpn_convs.0.weight", "roi_head.bbox_head.1.shared_fcs.0.bias"} < {*packed}
    assert {"rpn_head.rpn_cls.weight", "roi_head.bbox_head.2.fc_reg.weight"} < names & {*packed}


@pytest.mark.slow
def test_losses_at_every_precision_level():
    model = tiny_detector(drop_path_rate=0.0)
    batch = tiny_batch(model)
    full = losses(model, batch)
    assert len(full) == 1 + len(LOSS_NAMES) and np.isfinite(full).all()
    assert abs(full[0] - full[1:].sum()) <= 1e-5 * full[0]
    for level, half in (("O1", "float16"), ("O2", "float16"), ("O1", "bfloat16"), ("O2", "bfloat16")):
        set_precision(model, level, half)
        assert np.abs(losses(model, batch)[1:3] - full[1:3]).max() < 0.02  # before any box is refined or sampled
        assert abs(losses(model, batch)[0] - full[0]) < 0.1 * full[0]


@pytest.mark.slow
def test_stochastic_depth_follows_the_given_noise():
    model = tiny_detector(drop_path_rate=0.5)
    batch = tiny_batch(model)
    noise = batch.noise
    first, again, other = (losses(model, batch._replace(noise=x)) for x in (noise, noise, 1 - noise))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.slow
def test_recomputation_changes_no_gradient():
    ms.set_context(mode=ms.GRAPH_MODE)
    found, values = [], None
    for recompute in (False, True):
        model = tiny_detector(drop_path_rate=0.0)
        parameters = list(model.get_parameters())
        values = values or [parameter.asnumpy() for parameter in parameters]
        for parameter, value in zip(parameters, values, strict=True):
            parameter.set_data(Tensor(value))
        if recompute:
            model.set_grad_checkpointing()
        step = LossAndGradients(DetectionLoss(model), ParameterTuple(model.trainable_params()))
        (total, *_), gradients = step(*arguments(tiny_batch(model)))
        found.append([total.asnumpy(), *(gradient.asnumpy() for gradient in gradients)])
    for one, other in zip(*found, strict=True):
        assert np.abs(one - other).max() <= 1e-5 * max(np.abs(one).max(), 1e-3)
