"""Convolutions, pyramid and heads against NumPy and mmdetection's vectors."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops
from numpy.lib.stride_tricks import sliding_window_view
from support.detection import TABLE, vectors
from support.detection_model import check_flat_gradient, detector, torch_names
from support.mask_crops import crop_masks

from msg_ms.boxes.masks import CROP_SIZE
from msg_ms.models.detection.conv import Conv2d, Deconv2x2
from msg_ms.models.detection.detection_loss import DetectionLoss
from msg_ms.ops import UpsampleAdd, use_backend

CROPS = (((CROP_SIZE, CROP_SIZE), np.uint8), ((4,), np.float32))  # shapes and types of crops and of their frames


@pytest.fixture(autouse=True)
def pynative():
    """Without compilation: these tests make a few calls each."""
    ms.set_context(mode=ms.PYNATIVE_MODE)


def draw(*shape: int) -> np.ndarray:
    return np.random.RandomState(sum(shape)).standard_normal(shape).astype(np.float32)


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    k = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2))).astype(np.float64)
    return np.einsum("bchwyx,ocyx->bohw", sliding_window_view(padded, (k, k), (2, 3)), weight) + bias.reshape(-1, 1, 1)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("unfold", [None, True, False])
def test_convolution_and_gradients_match_numpy(kernel_size, unfold):
    conv = Conv2d(5, 7, kernel_size, unfold=unfold)
    conv.bias.set_data(Tensor(draw(7)))
    x, dy = draw(2, 5, 6, 9), draw(2, 7, 6, 9)
    weight, bias = conv.weight.asnumpy(), conv.bias.asnumpy()
    assert np.allclose(conv(Tensor(x)).asnumpy(), convolved(x, weight, bias), atol=1e-5)
    dx, (dweight, dbias) = ms.grad(lambda x: (conv(x) * Tensor(dy)).sum(), 0, [conv.weight, conv.bias])(Tensor(x))
    # The transposed convolution is one with the flipped and transposed weight.
    assert np.allclose(
        dx.asnumpy(), convolved(dy, weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3), np.zeros(5)), atol=1e-5
    )
    k = kernel_size // 2
    windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (k, k), (k, k))), (kernel_size,) * 2, (2, 3))
    assert np.allclose(dweight.asnumpy(), np.einsum("bchwyx,bohw->ocyx", windows, dy), atol=1e-4)
    assert np.allclose(dbias.asnumpy(), dy.sum((0, 2, 3)), atol=1e-4)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_convolution_in_half_precision_rounds_operands_and_result(kernel_size):
    conv = Conv2d(300, 4, kernel_size, bias=False)
    conv.weight.set_data(Tensor(draw(4, 300, kernel_size, kernel_size)))
    conv.set_compute_dtype(ms.float16, ms.float32)
    x, weight = draw(2, 300, 5, 6), conv.weight.asnumpy()
    wanted = convolved(*(values.astype(np.float16).astype(np.float32) for values in (x, weight)), np.zeros(4))
    assert np.allclose(conv(Tensor(x)).asnumpy(), wanted, rtol=1.01 * 2**-11, atol=1e-5 * np.abs(wanted).max())
    assert np.abs(convolved(x, weight, np.zeros(4)) - wanted).max() > 1e-4 * np.abs(wanted).max()


def test_transposed_convolution_matches_numpy():
    deconv, x = Deconv2x2(5, 7), draw(2, 5, 3, 4)
    deconv.bias.set_data(Tensor(draw(7)))
    wanted = np.einsum("bchw,coyx->bohywx", x, deconv.weight.asnumpy()).reshape(2, 7, 6, 8)
    assert np.allclose(deconv(Tensor(x)).asnumpy(), wanted + deconv.bias.asnumpy().reshape(-1, 1, 1), atol=1e-5)


@pytest.mark.parametrize("height, width", [(6, 8), (5, 7), (6, 7)])
def test_upsampling_copies_the_nearest_pixel(height, width):
    x = draw(2, 3, 3, 4)
    rows, columns = np.arange(height) * 3 // height, np.arange(width) * 4 // width
    copied, y = x[:, :, rows][:, :, :, columns], draw(2, 3, height, width)
    native = UpsampleAdd()
    with use_backend("composed"):
        composed = UpsampleAdd()
    gradients = [ops.grad(lambda a, b, run=run: (run(a, b) * Tensor(y)).sum(), (0, 1)) for run in (native, composed)]
    for run in (native, composed):
        assert np.array_equal(run(Tensor(y), Tensor(x)).asnumpy(), y + copied)
    for a, b in zip(*(gradient(Tensor(y), Tensor(x)) for gradient in gradients), strict=True):
        assert np.allclose(a.asnumpy(), b.asnumpy(), atol=1e-5)


def test_pyramid_and_region_proposals_match_mmdetection():
    reference, model = vectors("detector"), detector()
    pyramid, logits, deltas = model.pyramid(Tensor(reference["images"]))
    for i in range(len(pyramid)):
        TABLE.check("detector fpn", pyramid[i], reference[f"train_bn/fpn{i}"])
        TABLE.check("detector rpn_cls", logits[i], reference[f"train_bn/rpn_cls{i}"])
        TABLE.check("detector rpn_reg", deltas[i], reference[f"train_bn/rpn_reg{i}"])


def test_gradients_of_the_region_proposal_head_match_mmdetection():
    reference, head = vectors("detector"), detector().rpn_head
    pyramid, wanted = [], []
    for level in sorted(int(level) for (level,) in reference.cases(r"train_bn/fpn(\d+)")):
        pyramid.append(Tensor(reference[f"train_bn/fpn{level}"]))
        wanted.append([Tensor(reference[f"train_bn/rpn_{kind}{level}.grad"]) for kind in ("cls", "reg")])

    def weighted(*maps):
        logits, deltas = head(maps)
        terms = zip(logits, deltas, wanted, strict=True)
        return sum((logit * dlogit).sum() + (delta * ddelta).sum() for logit, delta, (dlogit, ddelta) in terms)

    parameters = list(head.trainable_params())
    gradients = ms.grad(weighted, None, parameters)(*pyramid)
    for name, gradient in zip(torch_names(parameters), gradients, strict=True):
        key = f"train_bn/rpn_only.{name.removeprefix('rpn_head.')}.grad"
        check_flat_gradient("detector rpn_only gradients", "detector", key, gradient)


def by_image(reference, key: str) -> np.ndarray:
    """RoIs (B*R, 1 + 4) with an image index as boxes (B, R, 4)."""
    rois = reference[key]
    images = int(rois[:, 0].max()) + 1
    return rois[:, 1:].reshape(images, -1, 4)


def pyramid_of_vectors():
    reference = vectors("detector")
    levels = sorted(int(level) for (level,) in reference.cases(r"train_bn/fpn(\d+)"))
    return tuple(Tensor(reference[f"train_bn/fpn{level}"]) for level in levels)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_box_and_mask_heads_at_test_time_match_mmdetection(stage):
    reference, heads = vectors("inference"), detector().roi_head
    logits, deltas = heads.predict_boxes(stage, pyramid_of_vectors(), Tensor(by_image(reference, f"s{stage}.rois")))
    for name, output in (("cls_score", logits), ("bbox_pred", deltas)):
        TABLE.check(f"inference {name}", output.reshape(-1, output.shape[-1]), reference[f"s{stage}.{name}"])
    labels = np.concatenate([reference[f"img{i}.labels"] for (i,) in reference.cases(r"img(\d+)\.labels")])
    boxes = by_image(reference, "mask_rois")
    labels = Tensor(labels.reshape(boxes.shape[:2]).astype(np.int32))
    masks = heads.predict_masks(stage, pyramid_of_vectors(), Tensor(boxes), labels)
    masks = ms.ops.sigmoid(masks).asnumpy().reshape(-1, *masks.shape[2:])
    TABLE.check("inference mask_prob of a stage", masks[::5], reference[f"s{stage}.mask_prob"])  # every fifth is stored


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_box_and_mask_heads_in_training_match_mmdetection(stage):
    reference, heads = vectors("detector"), detector().roi_head
    case = f"train_bn/s{stage}"
    boxes = by_image(reference, f"{case}.rois")
    head = heads.bbox_head[stage].set_train()
    logits, deltas = heads.predict_boxes(stage, pyramid_of_vectors(), Tensor(boxes))
    for name, output in (("cls_score", logits), ("bbox_pred", deltas)):
        TABLE.check(f"detector train_bn {name}", output.reshape(-1, output.shape[-1]), reference[f"{case}.{name}"])
    for i, conv in enumerate(head.shared_convs):
        after = f"train_bn/after/roi_head.bbox_head.{stage}.shared_convs.{i}.bn"
        TABLE.check("detector running_mean", conv.bn.moving_mean, reference[f"{after}.running_mean"])
        TABLE.check("detector running_var", conv.bn.moving_variance, reference[f"{after}.running_var"])
    labels = reference[f"{case}.labels"].astype(np.int32).reshape(boxes.shape[:2])
    classes = head.num_classes
    positive = (labels < classes).ravel()
    masks = heads.predict_masks(stage, pyramid_of_vectors(), Tensor(boxes), Tensor(np.minimum(labels, classes - 1)))
    masks = masks.asnumpy().reshape(-1, *masks.shape[2:])[positive]
    TABLE.check("detector mask_pred", masks, reference[f"{case}.mask_pred"])


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_mask_loss_from_crops_matches_mmdetection(stage):
    reference, model = vectors("detector"), detector()
    case, slots, classes = f"train_bn/s{stage}", model.settings.roi_positives, model.settings.num_classes
    images = range(len(reference["images"]))
    gts = [reference[f"gt.img{i}.boxes"] for i in images]
    crops, frames = (np.zeros((len(gts), max(map(len, gts)), *end), dtype) for end, dtype in CROPS)
    own, labels = np.zeros((len(gts), slots), np.int32), np.full((len(gts), slots), classes, np.int32)
    boxes = by_image(reference, f"{case}.rois")[:, :slots].copy()
    for i, gt in enumerate(gts):
        crops[i, : len(gt)], frames[i, : len(gt)] = crop_masks(reference[f"gt.img{i}.masks"], gt)
        pos_gt = reference[f"{case}.img{i}.pos_gt"]
        own[i, : len(pos_gt)], labels[i, : len(pos_gt)] = pos_gt, reference[f"gt.img{i}.labels"][pos_gt]
    inputs = [Tensor(x) for x in (boxes, own, labels, crops, frames)]
    loss = DetectionLoss(model).stage_mask_loss(stage, pyramid_of_vectors(), *inputs)
    weighted = model.settings.stage_weights[stage] * loss.asnumpy()
    TABLE.check("detector loss_mask, from crops", weighted.reshape(1), reference[f"{case}.loss_mask"], "crop loss")
