"""The models through mindcv's own registry and factory."""

import subprocess
import sys

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindcv.models import registry
from mindcv.optim.optim_factory import init_group_params

import msg_ms
from msg_ms import MSGTransformer, UserError
from msg_ms.checkpoint import load_weights, parameters_by_name
from msg_ms.models.decay import has_weight_decay

NAMES = {"msg_tiny", "msg_small", "msg_base"}
# Two narrow stages instead of four; mindcv.create_model passes unknown arguments on.
NARROW = dict(embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4, shuffle_size=(2, 1))


def test_names_are_listed_and_none_is_pretrained():
    assert set(msg_ms.list_models()) == NAMES <= set(mindcv.list_models("msg*"))
    assert set(mindcv.list_models(module="mindcv_registry")) == NAMES
    assert not NAMES & set(mindcv.list_models(pretrained=True))
    for name in NAMES:
        assert mindcv.is_model(name) and mindcv.model_entrypoint(name).__name__ == name
        assert not registry.is_model_pretrained(name)
        cfg = registry.get_pretrained_cfg(name)
        assert cfg == {"url": "", "num_classes": 1000, "first_conv": "patch_embed.proj", "classifier": "head"}
    tiny = mindcv.model_entrypoint("msg_tiny")
    assert tiny.__doc__ == "Build MSG-Transformer-T: 25.1M parameters, 3.8 GFLOPs at 224 x 224."
    with ms.nn.utils.no_init_parameters():
        own = {p.name for p in mindcv.create_model("msg_tiny").get_parameters()}
    assert {"patch_embed.proj.weight", "head.weight", "head.bias"} < own


def test_arguments_arrive_under_mindcvs_names():
    model = mindcv.create_model(
        "msg_tiny", num_classes=10, in_channels=1, image_size=32, drop_rate=0.1, drop_path_rate=0.4, **NARROW
    )
    assert type(model) is MSGTransformer and model.head.weight.shape == (10, 32)
    assert (model.in_chans, model.img_size) == (1, (32, 32))
    assert model.drop_path.probabilities == (0, 0.4) and model.layers[0].blocks[0].mlp.drop.p == 0.1
    # None means the model's own default, as from a command line without the flag.
    plain = mindcv.create_model("msg_tiny", drop_rate=None, drop_path_rate=None, img_size=32, **NARROW)
    assert plain.drop_path.probabilities == (0, 0.1)


def test_mistakes():
    with pytest.raises(UserError, match="no model is called 'msg_tny'; did you mean 'msg_tiny'"):
        msg_ms.create_model("msg_tny")
    for name in NAMES:
        with pytest.raises(UserError, match=f"pretrained=True: no trained weights of {name} are published"):
            mindcv.create_model(name, pretrained=True)
    with pytest.raises(UserError, match=r"img_size=112 can't be cut into whole windows.*fit: 224"):
        mindcv.create_model("msg_tiny", image_size=112)


def test_checkpoints_load_through_mindcv(tmp_path):
    saved = mindcv.create_model("msg_tiny", num_classes=3, img_size=32, **NARROW)
    ms.save_checkpoint(saved, str(tmp_path / "saved.ckpt"))
    values = {p.name: p.asnumpy() for p in saved.get_parameters()}
    for settings in ({"num_classes": 3}, {"features_only": True}, {"features_only": True, "out_indices": [0]}):
        loaded = mindcv.create_model(
            "msg_tiny", img_size=32, checkpoint_path=str(tmp_path / "saved.ckpt"), **NARROW, **settings
        )
        assert all((p.asnumpy() == values[p.name]).all() for p in loaded.get_parameters())


def test_a_checkpoint_of_mindcvs_trainer_loads_here(tmp_path):
    model, other = (mindcv.create_model("msg_tiny", num_classes=3, img_size=32, **NARROW) for _ in range(2))
    for name, file in (("adamw", "adamw.ckpt"), ("momentum", "momentum.ckpt")):
        optimizer = mindcv.create_optimizer(model, opt=name, lr=[1e-3, 1e-4], weight_decay=0.05)
        saved = {p.name: p for cell in (model, optimizer) for p in cell.get_parameters()}
        assert len(saved) > len(parameters_by_name(model.get_parameters())) + 2
        ms.save_checkpoint([dict(name=name, data=p) for name, p in saved.items()], str(tmp_path / file))
        load_weights(other, tmp_path / file)
        pairs = zip(model.get_parameters(), other.get_parameters(), strict=True)
        assert all((a.asnumpy() == b.asnumpy()).all() for a, b in pairs)


def test_o3_computes_what_single_precision_does():
    """mindcv's O3 is Cell.to_float: blocks then receive half precision, which the native kernels can't read."""
    images = ms.Tensor(np.random.RandomState(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    model = mindcv.create_model("msg_tiny", num_classes=3, img_size=32, **NARROW).set_train(False)
    single = model(images).asnumpy()
    half = ms.amp.auto_mixed_precision(model, "O3")(images).asnumpy()
    assert 0 < np.abs(half - single).max() < 5e-3 * np.abs(single).max()


def test_mindcvs_optimizers_exclude_what_the_papers_code_excludes():
    model = mindcv.create_model("msg_tiny", img_size=32, ape=True, **NARROW)
    assert model.no_weight_decay() >= {"absolute_pos_embed", "layers.1.blocks.0.attn.rel_pos_msg"}
    decayed, rest, _ = init_group_params(model.trainable_params(), 0.05, "norm_and_bias", model.no_weight_decay())
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.05, 0.0)
    assert {p.name for p in decayed["params"]} == {p.name for p in model.trainable_params() if has_weight_decay(p)}
    assert np.mean([p.ndim > 1 for p in decayed["params"]]) == 1


def test_the_package_works_without_mindcv():
    code = """
import sys
sys.modules["mindcv"] = None  # as if it were not installed
import msg_ms
print(msg_ms.create_model("msg_tiny", num_classes=0, embed_dim=16, num_heads=(1, 1, 1, 1)).num_features)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=300)
    assert done.stdout.split() == ["128"], done.stderr
