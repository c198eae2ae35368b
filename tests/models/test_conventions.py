"""The calls that users of timm and mindcv make: front door, head, tokens, maps, weights for other channels."""

import copy

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

import msg_ms
from msg_ms import UserError
from msg_ms.checkpoint import parameters_by_name, to_numpy, write_checkpoint
from msg_ms.checkpoint.resize import adapt_channels

SMALL = dict(img_size=32, embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4, shuffle_size=(2, 1))
SMALL_DETECTOR = dict(
    **{**SMALL, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "shuffle_size": (1, 1, 1, 1)},
    fpn_channels=8,
    fc_channels=8,
    test_proposals=20,
    max_detections=3,
)


def images(*shape: int) -> Tensor:
    return Tensor(np.random.RandomState(0).standard_normal(shape).astype(np.float32))


def small(**changes):
    return msg_ms.create_model("msg_tiny", **{**SMALL, "num_classes": 3, **changes}).set_train(False)


def test_names():
    assert msg_ms.list_models("*_s*") == ["msg_small"] and msg_ms.list_models(["*tiny", "*base"]) == [
        "msg_tiny",
        "msg_base",
    ]
    assert msg_ms.list_models(pretrained=True) == []
    assert msg_ms.list_detectors("*base") == ["cascade_mask_rcnn_msg_base", "cascade_rcnn_msg_base"]


@pytest.mark.parametrize("create", (msg_ms.create_model, mindcv.create_model))
def test_arguments(create):
    model = create("msg_tiny", 5, False, 2, "", drop_path_rate=None, **SMALL)
    assert (model.num_classes, model.in_chans, model.drop_path.probabilities) == (5, 2, (0, 0.1))
    assert create("msg_tiny", in_chans=4, **SMALL).in_chans == 4
    for arguments, message in (
        (dict(in_chan=3), "create_model has no argument 'in_chan'; did you mean 'in_chans'"),
        (dict(in_channels=1, in_chans=2), "in_channels=1 and in_chans=2: two names of one argument"),
        (dict(pretrained=True), "no trained weights of msg_tiny are published; train it, or convert a PyTorch"),
        (dict(num_classes=True), "num_classes=True: must be a whole number"),
        (dict(out_norm=True), "out_norm=True: only with features_only=True"),
        (dict(depths="22"), "depths='22': must be a list of whole numbers"),
    ):
        with pytest.raises(UserError, match=message):
            create("msg_tiny", **{**SMALL, **arguments})


def test_arguments_of_detectors():
    detector = msg_ms.create_detector("cascade_mask_rcnn_msg_tiny", 2, False, 1, **SMALL_DETECTOR)
    assert detector.backbone.in_chans == 1 and detector.feature_info.reduction() == [4, 8, 16, 32]
    tables = ("relative_position_bias_table", "rel_pos_msg")
    assert detector.no_weight_decay() == {p.name for p in detector.get_parameters() if p.name.endswith(tables)}
    with pytest.raises(UserError, match=r"pretrained=True: no trained weights of cascade_mask_rcnn_msg_tiny"):
        msg_ms.create_detector("cascade_mask_rcnn_msg_tiny", pretrained=True)
    with pytest.raises(UserError, match=r"img_shapes must be a float32 Tensor \(1, 2\), not int 3"):
        detector(images(1, 1, 64, 64), 3)
    with pytest.raises(UserError, match=r"ori_shapes: expected 2 numbers above 0"):
        detector.predict(images(1, 1, 64, 64), [[64, 64]], "x", [[1, 1, 1, 1]])


@pytest.mark.parametrize("mode", (ms.GRAPH_MODE, ms.PYNATIVE_MODE))
def test_tokens_features_and_head(mode):
    """Two windows in the last stage: the head receives the mean of their MSG tokens, which are the first tokens."""
    ms.set_context(mode=mode)
    model, x = small(drop_path_rate=0.0), images(2, 3, 64, 32)
    logits = model(x).asnumpy()
    tokens, features = model.forward_features(x), model.forward_features(x, pooled=True)
    assert tokens.shape == (2, 2 + 2 * 16, 32) and features.shape == (2, 32)
    assert np.abs(tokens.asnumpy()[:, :2].mean(1) - features.asnumpy()).max() < 1e-6
    assert np.abs(model.forward_head(tokens).asnumpy() - logits).max() < 1e-6
    assert (model.forward_head(features).asnumpy() == logits).all()
    assert (model.forward_head(features, pre_logits=True).asnumpy() == features.asnumpy()).all()
    # The patch tokens are the last map, row by row.
    final, (first, last) = model.forward_intermediates(x, norm=True)
    assert first.shape == (2, 16, 16, 8) and (final.asnumpy() == tokens.asnumpy()).all()
    assert (last.asnumpy() == tokens.asnumpy()[:, 2:].reshape(2, 8, 4, 32).transpose(0, 3, 1, 2)).all()
    backbone = small(features_only=True, drop_path_rate=0.0)
    values = to_numpy(parameters_by_name(model.get_parameters()))
    for parameter in backbone.get_parameters():
        parameter.set_data(Tensor(values[parameter.name]))
    assert np.abs(backbone(x)[0].asnumpy() - first.asnumpy()).max() < 1e-6


class Larger(nn.Cell):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def construct(self, x):
        return self.model(x), self.model.forward_head(self.model.forward_features(x))


def test_the_methods_follow_head_mode_and_copies_and_work_inside_other_graphs():
    model, x = small(drop_path_rate=0.5), images(2, 3, 32, 32)
    features = model.forward_features(x, pooled=True)
    assert model.forward_head(features).shape == (2, 3)
    model.reset_classifier(5)
    assert model.get_classifier().weight.shape == (5, 32) and model.num_classes == 5
    assert model.forward_head(features).shape == model(x).shape == (2, 5)
    assert [p.name for p in model.get_parameters()][-2:] == ["head.weight", "head.bias"]
    twin = copy.deepcopy(model)
    for parameter in twin.get_parameters():
        parameter.set_data(ms.ops.zeros_like(parameter))
    assert np.abs(twin.forward_features(x).asnumpy()).max() == 0 < np.abs(model.forward_features(x).asnumpy()).max()
    still = model.forward_features(x).asnumpy()
    moved = [model.set_train(True).forward_features(x).asnumpy() for _ in range(8)]
    assert any((other != still).any() for other in moved)
    assert (model.set_train(False).forward_features(x).asnumpy() == still).all()
    larger = Larger(model).set_train(False)
    logits, same = larger(x)
    assert (logits.asnumpy() == same.asnumpy()).all() and logits.shape == (2, 5)
    model.reset_classifier(0)
    assert type(model.get_classifier()) is nn.Identity and (model(x).asnumpy() == features.asnumpy()).all()
    model.reset_classifier(2)
    assert [p.name for p in larger.get_parameters()][-2:] == ["model.head.weight", "model.head.bias"]
    with pytest.raises(UserError, match="global_pool='avg': must be None"):
        model.reset_classifier(2, "avg")


def test_checkpointing_on_and_off():
    model, x = small(drop_path_rate=0.0), images(2, 3, 32, 32)
    scopes = [cell._scope for _, cell in model.cells_and_names()]

    def total(x):
        return model(x).sum()

    found = []
    for enable in (False, True, False):
        model.set_grad_checkpointing(enable)
        changed = [cell._scope for _, cell in model.cells_and_names()] != scopes
        assert changed == enable
        found.append([g.asnumpy() for g in ms.grad(total, None, model.trainable_params())(x)])
    assert all((a == b).all() and (a == c).all() for a, b, c in zip(*found, strict=True))


def test_weights_for_other_channels(tmp_path):
    """A grey image has the same tokens in the model for grey images as in colour, where it has three equal channels."""
    colour = small(drop_path_rate=0.0)
    write_checkpoint(tmp_path / "colour.ckpt", to_numpy(parameters_by_name(colour.get_parameters())))
    grey = small(drop_path_rate=0.0, in_channels=1, checkpoint_path=tmp_path / "colour.ckpt")
    x = images(2, 1, 32, 32)
    same = colour(ms.ops.tile(x, (1, 3, 1, 1))).asnumpy()
    assert np.abs(grey(x).asnumpy() - same).max() < 1e-5 * np.abs(same).max()
    many = small(in_chans=16, checkpoint_path=str(tmp_path / "colour.ckpt"), features_only=True)
    weights = [m.patch_embed.proj.weight.asnumpy() for m in (colour, many)]
    assert many(images(1, 16, 32, 32))[0].shape == (1, 16, 8, 8)
    assert np.allclose(weights[1][:, 4], weights[0][:, 1] * 3 / 16) and np.allclose(weights[1][:, 15], weights[1][:, 0])
    with pytest.raises(UserError, match=r"gone\.ckpt does not exist"):
        small(checkpoint_path=tmp_path / "gone.ckpt")
    with pytest.raises(UserError, match="checkpoint_path=5: must be a path"):
        small(checkpoint_path=5)


def test_channels_are_adapted_as_by_timm():
    weight = np.random.RandomState(0).randn(2, 3, 2, 2).astype(np.float32)
    assert np.allclose(adapt_channels(weight, 1), weight.sum(1, keepdims=True))
    four = adapt_channels(weight, 4)
    assert four.shape == (2, 4, 2, 2) and np.allclose(four[:, [0, 1, 2, 3]], weight[:, [0, 1, 2, 0]] * 0.75)


def test_mindspores_own_training_loop(capsys):
    """``mindspore.train.Model`` with a loss, an optimizer and ``LossMonitor`` learns a batch."""
    model = msg_ms.create_model("msg_tiny", **{**SMALL, "num_classes": 2, "drop_path_rate": 0.0})
    pixels = images(4, 3, 32, 32).asnumpy()
    batch = ms.dataset.NumpySlicesDataset((pixels, np.array([0, 1, 0, 1], np.int32)), shuffle=False).batch(4)
    optimizer = nn.Adam(model.trainable_params(), 3e-3)
    trainer = ms.train.Model(model, nn.CrossEntropyLoss(), optimizer, metrics={"accuracy"})
    monitor = ms.train.LossMonitor()
    trainer.train(20, batch, callbacks=[monitor], dataset_sink_mode=False)
    losses = [float(line.split("loss is ")[1]) for line in capsys.readouterr().out.splitlines() if "loss is" in line]
    assert len(losses) == 20 and losses[-1] < 0.2 * losses[0]
    assert trainer.eval(batch, dataset_sink_mode=False) == {"accuracy": 1.0}
