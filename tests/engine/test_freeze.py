"""TRAIN.FREEZE and TRAIN.LAYER_DECAY: what is trained, how fast, and what stays as it is."""

import time

import mindspore as ms
import numpy as np
import pytest
from conftest import ROOT
from mindspore import Parameter, Tensor, nn
from support.reference import SMALL
from support.small_run import CONFIG, write_images

import msg_ms
from msg_ms import MSGTransformer, UserError, ops
from msg_ms.checkpoint import read_checkpoint
from msg_ms.engine.ema import WeightEMA
from msg_ms.engine.optim import SGD, AdamW
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, TrainStep
from msg_ms.models.detection.conv import ConvModule
from msg_ms.models.freeze import freeze, moving_statistics, set_training
from msg_ms.models.layer_decay import lr_scales
from msg_ms.tasks.classification import ClassificationLoss

STEM = {"patch_embed.proj.weight", "patch_embed.proj.bias", "patch_embed.norm.gamma", "patch_embed.norm.beta"}
X = np.random.RandomState(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
LABELS = np.array([1, 0], np.int32)
NOISE = np.zeros((2, 2, 2), np.float32)  # drops every branch that may be dropped


def names(parameters):
    return {parameter.name for parameter in parameters}


def gradients(model):
    cell = LossAndGradients(ClassificationLoss(model), ms.ParameterTuple(model.trainable_params()))
    (loss,), found = cell(Tensor(X), Tensor(LABELS), Tensor(NOISE))
    return loss.asnumpy(), {p.name: g.asnumpy() for p, g in zip(model.trainable_params(), found, strict=True)}


def test_entries_name_stages_cells_and_patterns():
    model = MSGTransformer(**SMALL)
    every = names(model.get_parameters())
    assert freeze(model, ()) == [] and names(model.trainable_params()) == every
    assert names(freeze(model, ["0"])) == {*STEM, "msg_tokens"}
    first = names(freeze(MSGTransformer(**SMALL), ["1"]))
    assert first == {n for n in every if n.startswith("layers.0.")} | STEM | {"msg_tokens"}
    model = MSGTransformer(**SMALL)
    assert names(freeze(model, ["layers.*.attn", "norm"])) == {n for n in every if ".attn." in n} | {
        "norm.gamma",
        "norm.beta",
    }
    model = MSGTransformer(**SMALL)
    freeze(model, ["backbone"])
    assert names(model.trainable_params()) == {"head.weight", "head.bias"}
    for entries, message in (
        (["3"], "TRAIN.FREEZE=3: the backbone has 2 stages"),
        (["layer.0"], r"TRAIN.FREEZE=layer\.0: no parameter has such a name; did you mean 'layers.0'"),
        (["*"], r"TRAIN.FREEZE=\['\*'\]: nothing is left to train"),
    ):
        with pytest.raises(UserError, match=message):
            freeze(MSGTransformer(**SMALL), entries)


def test_stages_of_a_detector_are_mmdetections():
    with nn.utils.no_init_parameters():
        detector = msg_ms.create_detector(
            "cascade_mask_rcnn_msg_tiny", 2, depths=(1, 1, 1, 1), embed_dim=16, fpn_channels=8, fc_channels=8
        )
    every = names(detector.trainable_params())
    wanted = ("patch_embed.", "msg_tokens", "layers.0.", "layers.1.", "norm0.", "norm1.")
    frozen = freeze(detector, ["2"])
    assert names(frozen) == {n for n in every if n.startswith(tuple(f"backbone.{part}" for part in wanted))}
    assert detector.backbone.drop_path.kept == (True, True, False, False)
    set_training(detector)
    assert detector.neck.training and not detector.backbone.layers[1].training
    statistics = [p.name for p in moving_statistics(detector, frozen)]
    assert statistics and all("moving_" in name for name in statistics)
    freeze(detector, ["backbone", "roi_head.bbox_head.0"])
    assert not any("bbox_head.0" in p.name for p in moving_statistics(detector, frozen))


def test_gradients_of_the_rest_and_evaluation_mode_of_the_frozen_part():
    """With the first stage frozen the other gradients are those of a model that never drops its first block."""
    arguments = {**SMALL, "num_classes": 2, "drop_path_rate": 0.0}
    whole, part = MSGTransformer(**arguments), MSGTransformer(**arguments)
    for mine, other in zip(part.get_parameters(), whole.get_parameters(), strict=True):
        mine.set_data(Tensor(other.asnumpy()))
    wanted_loss, wanted = gradients(whole)
    freeze(part, ["1"])
    loss, found = gradients(part)
    assert not part.layers[0].training and part.layers[1].training and not part.pos_drop.training
    assert loss == wanted_loss and found.keys() == {n for n in wanted if n.startswith(("layers.1", "norm", "head"))}
    assert all(np.abs(found[n] - wanted[n]).max() <= 1e-6 * np.abs(wanted[n]).max() for n in found)
    # Dropout and stochastic depth of a frozen backbone are off.
    noisy = MSGTransformer(**{**arguments, "drop_path_rate": 0.9, "drop_rate": 0.5})
    freeze(noisy, ["backbone"])
    set_training(noisy)
    trained = noisy(Tensor(X), Tensor(NOISE)).asnumpy()
    assert (trained == noisy.set_train(False)(Tensor(X)).asnumpy()).all()


def test_moments_and_averages():
    model = MSGTransformer(**SMALL)
    frozen = freeze(model, ["1"])
    trained = model.trainable_params()
    optimizer, average = AdamW(trained, (0.9, 0.99), 1e-8, 0.3), WeightEMA(trained, 0.9, frozen)
    moments = {n.split(".", 1)[1] for n in optimizer.state() if n != "updates"}
    assert moments == names(trained) and not moments & names(frozen)
    # A checkpoint's average holds every weight, so that it can be evaluated and converted alone.
    assert average.state().keys() == names(model.get_parameters())


def test_frozen_batch_normalisation_keeps_its_statistics_and_passes_gradients_on():
    module = ConvModule(3, 4, 3, batch_norm=True, relu=True)
    module.bn.moving_mean.set_data(Tensor(np.array([0.1, -0.2, 0.3, 0.0], np.float32)))
    x = Tensor(np.random.RandomState(1).standard_normal((2, 3, 6, 8)).astype(np.float32))
    frozen = module(x).asnumpy() if not module.training else module.set_train(False)(x).asnumpy()
    outer = nn.SequentialCell([module, nn.Conv2d(4, 1, 1)])
    freeze(outer, ["0.*"])
    set_training(outer)
    before = module.bn.moving_mean.asnumpy().copy()
    assert (module(x).asnumpy() == frozen).all() and (module.bn.moving_mean.asnumpy() == before).all()

    def total(x):
        return module(x).sum()

    step = np.random.RandomState(2).standard_normal(x.shape).astype(np.float32)
    slope = float((ms.grad(total)(x).asnumpy() * step).sum())
    ends = [module(x + Tensor(sign * 1e-3 * step)).asnumpy().astype(np.float64).sum() for sign in (1, -1)]
    assert abs((ends[0] - ends[1]) / 2e-3 - slope) < 0.02 * abs(slope)


@pytest.mark.parametrize("kind", ("native", "composed", "sgd"))
def test_each_parameter_has_its_own_learning_rate(kind):
    """A step with factors equals steps of one optimizer for each parameter at its own rate."""
    draws, scales, rate = np.random.RandomState(0), (1.0, 0.5, 0.125), 0.1
    values = [draws.randn(3, 4).astype(np.float32) for _ in scales]
    slopes = [draws.randn(3, 4).astype(np.float32) for _ in scales]

    def build(parameters, factors):
        if kind == "sgd":
            return SGD(parameters, 0.9, 0.3, lr_scales=factors)
        with ops.use_backend(kind):
            return AdamW(parameters, (0.9, 0.99), 1e-8, 0.3, lr_scales=factors)

    def train(parameters, factors, grads, lr):
        optimizer = build(parameters, factors)
        for _ in range(2):
            optimizer(tuple(map(Tensor, grads)), Tensor(lr, ms.float32), Tensor(1.0, ms.float32))
        return [p.asnumpy() for p in parameters]

    together = train([Parameter(Tensor(v), name=f"p{i}.weight") for i, v in enumerate(values)], scales, slopes, rate)
    for i, scale in enumerate(scales):
        (alone,) = train([Parameter(Tensor(values[i]), name="p.weight")], None, [slopes[i]], rate * scale)
        assert np.abs(together[i] - alone).max() < 1e-6 and np.abs(alone - values[i]).max() > 0.01 * scale


def test_layers_of_a_detector_end_at_its_backbone():
    with nn.utils.no_init_parameters():
        detector = msg_ms.create_detector(
            "cascade_mask_rcnn_msg_tiny", 2, depths=(1, 1, 1, 1), embed_dim=16, fpn_channels=8, fc_channels=8
        )
    parameters = detector.trainable_params()
    scales = dict(zip(names_in_order(parameters), lr_scales(detector, parameters, 0.5), strict=True))
    assert scales["backbone.msg_tokens"] == 0.5**5 and scales["backbone.layers.0.blocks.0.attn.qkv.weight"] == 0.5**4
    assert scales["backbone.layers.0.downsample.reduction.weight"] == 0.5**3  # with the block after it
    assert scales["neck.lateral_convs.0.conv.weight"] == 1 and lr_scales(detector, parameters, 1.0) is None


def names_in_order(parameters):
    return [parameter.name for parameter in parameters]


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit_and_only_with_the_same_parts(command, tmp_path):
    write_images(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    options = ["TRAIN.LAYER_DECAY", "0.5", "TRAIN.EMA_DECAY", "0.9", "SAVE_STEPS", "1", "KEEP_LAST", "20"]

    def train(freeze, status=0):
        flags = ("--cfg", "small.yaml", "--data-path", "data", "--opts", *options, "TRAIN.FREEZE", freeze)
        return command(ROOT / "train.py", *flags, status=status)

    assert "frozen: " in train("[1]").stdout
    folder = tmp_path / "output" / "small" / "default"
    newest = sorted(folder.glob("ckpt_*.ckpt"))
    wanted, _ = read_checkpoint(newest[-1])
    begun, _ = read_checkpoint(newest[0])
    same = {name for name in begun if not name.startswith("optimizer.") and (begun[name] == wanted[name]).all()}
    assert "patch_embed.proj.weight" in same and "ema.patch_embed.proj.weight" in same and "head.weight" not in same
    assert "optimizer.moment1.patch_embed.proj.weight" not in wanted
    for path in newest[2:]:
        path.unlink()
    assert "resuming from" in train("[1]").stdout
    again, _ = read_checkpoint(newest[-1])
    assert wanted.keys() == again.keys() and all((wanted[n] == again[n]).all() for n in wanted)
    message = train("[2]", status=2).stderr
    assert "TRAIN.FREEZE=['2']: the run of" in message and "had ['1']: resume with the same" in message


@pytest.mark.slow
def test_a_step_with_a_frozen_backbone_needs_half_of_the_processor_time_at_most():
    images, labels = np.zeros((4, 3, 224, 224), np.float32), np.array([0, 1, 2, 3], np.int32)
    batch, steps = (images, labels, np.full((22, 2, 4), 0.9, np.float32)), []
    for entries in ((), ("backbone",)):
        model = msg_ms.create_model("msg_tiny", num_classes=10)
        freeze(model, entries)
        optimizer = AdamW(model.trainable_params(), (0.9, 0.999), 1e-8, 0.05)
        step = TrainStep(LossAndGradients(ClassificationLoss(model), optimizer.targets), OptimizerStep(optimizer, 5.0))
        step.run([batch], 1e-3)
        steps.append(step)
    seconds = [[], []]
    for _ in range(5):
        for step, found in zip(steps, seconds, strict=True):
            begun = time.process_time()
            step.run([batch], 1e-3)
            found.append(time.process_time() - begun)
    whole, frozen = map(np.median, seconds)
    assert frozen <= 0.5 * whole, f"{frozen:.2f} s of {whole:.2f} s"
