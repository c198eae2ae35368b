"""Inference in bfloat16: close to single precision, on all kinds of models, and refused in words where it can't run."""

import ctypes

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from support.native import kernel_library
from support.noisy_model import SMALL, noisy

from msg_ms import MSGFeatures, MSGTransformer, UserError, ops, optimize_for_inference
from msg_ms.config import load_config
from msg_ms.models import inference
from msg_ms.models.precision import set_precision

SUPPORTED = bool(ctypes.CDLL(str(kernel_library())).supports_bfloat16())
needs_instructions = pytest.mark.skipif(not SUPPORTED, reason="this CPU has no bfloat16 instructions")


def optimized(model, images):
    """Return the outputs before and after."""
    before = model(images)
    return before, optimize_for_inference(model, precision="bfloat16")(images)


@needs_instructions
@pytest.mark.parametrize(
    "change",
    (
        {},
        {"img_size": (28, 56), "window_size": 7, "num_heads": (2,), "embed_dim": 24, "qkv_bias": False,
         "shuffle_size": (1,), "depths": (2,), "in_chans": 2},
        {"patch_norm": False, "ape": True},
        {"ape": True, "depths": (1,), "shuffle_size": (1,), "num_heads": (2,)},
    ),
)  # fmt: skip
def test_logits_are_close_to_single_precision(change):
    with ops.use_backend("native"):
        model = noisy(MSGTransformer(**{**SMALL, **change})).set_train(False)
    shape = (3, model.in_chans, *model.img_size)
    before, after = optimized(model, Tensor(np.random.RandomState(1).standard_normal(shape).astype(np.float32)))
    error = np.abs(after.asnumpy() - before.asnumpy()).max() / np.abs(before.asnumpy()).max()
    assert 0 < error < 0.03


@needs_instructions
def test_the_image_size_may_change():
    """Windows may leave the map's edge empty: the padding runs through the same kernel."""
    with ops.use_backend("native"):
        model = noisy(MSGFeatures(**SMALL)).set_train(False)
    images = Tensor(np.random.RandomState(1).standard_normal((2, 3, 32, 64)).astype(np.float32))
    before, after = optimized(model, images)
    for a, b in zip(before, after, strict=True):
        assert 0 < np.abs(a.asnumpy() - b.asnumpy()).max() <= 0.03 * np.abs(a.asnumpy()).max()


@needs_instructions
def test_weights_take_half_the_memory():
    arguments = dict(embed_dim=64, num_heads=(2,), shuffle_size=(1,), depths=(1,))
    with ops.use_backend("native"):
        models = [MSGTransformer(**SMALL | arguments) for _ in range(2)]
    sizes = [
        sum(
            p.size for p in optimize_for_inference(model, precision=precision).get_parameters() if p.size >= 64 * 64 / 2
        )
        for model, precision in zip(models, ("float32", "bfloat16"), strict=True)
    ]
    assert 0.5 <= sizes[1] / sizes[0] < 0.6


def test_refusals_name_the_reason(monkeypatch):
    with ops.use_backend("native"):
        model = MSGTransformer(**SMALL)
    with pytest.raises(UserError, match="precision='float16': must be one of float32, bfloat16"):
        optimize_for_inference(model, precision="float16")
    with ops.use_backend("composed"), pytest.raises(UserError, match="needs the native kernels; the operators are set"):
        optimize_for_inference(model, precision="bfloat16")
    monkeypatch.setattr(inference, "bfloat16_supported", lambda: False)
    with pytest.raises(UserError, match="needs the native kernels and a CPU with AVX512-BF16 instructions"):
        optimize_for_inference(model, precision="bfloat16")
    with monkeypatch.context() as patch:
        patch.setattr(ms, "get_context", lambda name: "GPU")
        with pytest.raises(UserError, match="is for CPU; on GPU use mixed precision"):
            optimize_for_inference(model, precision="bfloat16")
    monkeypatch.setattr(inference, "bfloat16_supported", lambda: True)
    set_precision(model, "O1")
    with pytest.raises(UserError, match="needs a model in single precision"):
        optimize_for_inference(model, precision="bfloat16")
    with ops.use_backend("native"):
        odd = MSGTransformer(**SMALL | dict(embed_dim=20, num_heads=(4, 4), shuffle_size=(1, 1)))
    with pytest.raises(UserError, match="heads of an even size, not 5 channels"):
        optimize_for_inference(odd, precision="bfloat16")


def test_the_key_is_for_classifiers_and_detectors():
    assert load_config(None, ["INFERENCE_PRECISION", "bfloat16"]).inference_precision == "bfloat16"
    with pytest.raises(UserError, match="INFERENCE_PRECISION='half': must be"):
        load_config(None, ["INFERENCE_PRECISION", "half"])
    detection = load_config(None, ["INFERENCE_PRECISION", "bfloat16", "TASK", "detection"])
    assert detection.inference_precision == "bfloat16"
