"""timm's own calls on its Swin Transformer and on ours: the same methods, the same shapes for the same arguments.

Needs timm and torch, which nothing else here does; see tests/README.md.
"""

import inspect
import sys
from importlib.util import find_spec
from types import ModuleType

import mindspore as ms
import numpy as np
import pytest

import msg_ms
from msg_ms.models.layer_decay import layer_scales

for package in ("torch", "timm"):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)
# torchvision's compiled part does not fit every torch; timm's models do not need it.
sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))

import timm  # noqa: E402
import torch  # noqa: E402
from timm.optim._param_groups import param_groups_layer_decay  # noqa: E402

SIZES = dict(embed_dim=16, depths=(1, 2, 3, 1), num_heads=(1, 2, 4, 8))
# What differs on purpose: methods of timm that are missing here, and shapes.
MISSING = {
    "set_input_size": "the window and image sizes of a built model are fixed; create_model(img_size=, window_size=)",
    "prune_intermediate_layers": "create_model(features_only=True, out_indices=)",
    "init_weights": "a new model has the initial weights of the paper's code",
    "load_pretrained": "no weights are published",
    "forward": "MSGTransformer is called, as MindSpore's Cells are; their method is construct",
}
TOKENS = "forward_features returns MSG tokens and patch tokens (B, M + H*W, C), as the head reads the MSG tokens"


def both(**arguments):
    theirs = timm.create_model("swin_tiny_patch4_window7_224", **SIZES, **arguments).eval()
    ours = msg_ms.create_model("msg_tiny", shuffle_size=(1, 1, 1, 1), **SIZES, **arguments).set_train(False)
    return theirs, ours


def inputs(channels: int = 3):
    x = np.random.RandomState(0).standard_normal((2, channels, 224, 224)).astype(np.float32)
    return torch.from_numpy(x), ms.Tensor(x)


def shapes(value):
    return tuple(value.shape) if hasattr(value, "shape") else [shapes(v) for v in value]


def test_every_method_of_timms_swin_is_here_or_on_the_list():
    theirs, ours = both()
    names = {
        name
        for name, value in inspect.getmembers(type(theirs), inspect.isfunction)
        if not name.startswith("_") and name not in dir(torch.nn.Module)
    }
    missing = {name for name in names | {"load_pretrained", "forward"} if not callable(getattr(ours, name, None))}
    assert missing == set(MISSING)
    for name in names - missing:
        wanted = list(inspect.signature(getattr(theirs, name)).parameters)
        found = list(inspect.signature(getattr(ours, name)).parameters)
        assert [argument for argument in found if argument in wanted] == wanted, name


def test_shapes_of_the_classifiers():
    theirs, ours = both(num_classes=5, in_chans=1)
    a, b = inputs(1)
    with torch.no_grad():
        assert shapes(theirs(a)) == shapes(ours(b)) == (2, 5)
        features = theirs.forward_features(a), ours.forward_features(b)
        assert shapes(features) == [(2, 7, 7, 128), (2, 1 + 7 * 7, 128)], TOKENS
        assert shapes(theirs.forward_head(features[0])) == shapes(ours.forward_head(features[1])) == (2, 5)
        pooled = [m.forward_head(f, pre_logits=True) for m, f in zip((theirs, ours), features, strict=True)]
        assert shapes(pooled) == [(2, 128)] * 2
        for arguments in (
            dict(indices=2, intermediates_only=True),
            dict(indices=[1, -1], norm=True, intermediates_only=True),
            dict(indices=[0, 1], stop_early=True, intermediates_only=True),
        ):
            wanted, found = (m.forward_intermediates(x, **arguments) for m, x in ((theirs, a), (ours, b)))
            assert shapes(wanted) == shapes(found) and len(found) == 2
        assert shapes(theirs.forward_intermediates(a, [3])[1]) == shapes(ours.forward_intermediates(b, [3])[1])
    assert theirs.num_features == ours.num_features and theirs.head_hidden_size == ours.head_hidden_size
    for model in (theirs, ours):
        assert tuple(model.get_classifier().weight.shape) == (5, 128)
        model.reset_classifier(7)
        assert tuple(model.get_classifier().weight.shape) == (7, 128) and model.num_classes == 7
        model.reset_classifier(0)
        assert type(model.get_classifier()).__name__ == "Identity"
        model.set_grad_checkpointing()
        model.set_grad_checkpointing(enable=False)
    for info, own in zip(theirs.feature_info, ours.feature_info, strict=True):
        assert {key: own[key] for key in info} == info
    assert {name.rpartition(".")[2] for name in theirs.no_weight_decay()} < {
        name.rpartition(".")[2] for name in ours.no_weight_decay()
    }


def test_shapes_of_the_backbones():
    theirs, ours = both(features_only=True, out_indices=(1, 3))
    a, b = inputs()
    with torch.no_grad():
        wanted = [tuple(y.permute(0, 3, 1, 2).shape) for y in theirs(a)]  # timm's Swin returns NHWC here
    assert [tuple(y.shape) for y in ours(b)] == wanted
    for method in ("channels", "reduction"):
        assert getattr(theirs.feature_info, method)() == getattr(ours.feature_info, method)()
        assert getattr(theirs.feature_info, method)(1) == getattr(ours.feature_info, method)(1)
    assert [name.replace("_", ".") for name in theirs.feature_info.module_name()] == ours.feature_info.module_name()


def matching(name: str) -> str:
    """timm's name of our parameter; its merging is at the beginning of the next stage."""
    if ".downsample." in name:
        stage = int(name.split(".")[1])
        name = name.replace(f"layers.{stage}.", f"layers.{stage + 1}.", 1)
        name = name.replace("reduction.bias", "reduction.weight")  # timm's has no bias
    return (
        name.replace(".rel_pos_msg", ".relative_position_bias_table")
        .replace("head.", "head.fc.")
        .replace(".gamma", ".weight")
        .replace(".beta", ".bias")
        .replace("msg_tokens", "patch_embed.proj.weight")
    )


@pytest.mark.parametrize("decay", (0.65, 0.9))
def test_learning_rates_by_layer(decay):
    theirs, ours = both()
    rates = {}
    of_name = {id(p): name for name, p in theirs.named_parameters()}
    for group in param_groups_layer_decay(theirs, 0.05, layer_decay=decay):
        rates |= {of_name[id(p)]: group["lr_scale"] for p in group["params"]}
    names = [p.name for p in ours.trainable_params()]
    found = layer_scales(names, SIZES["depths"], decay)
    assert len({round(f, 9) for f in found}) == sum(SIZES["depths"]) + 2
    for name, rate in zip(names, found, strict=True):
        assert rate == pytest.approx(rates[matching(name)], rel=1e-12), name
    # timm's own grouping accepts our function.
    from timm.models._manipulate import group_with_matcher

    for coarse in (False, True):
        groups = group_with_matcher(
            ((p.name, p) for p in ours.trainable_params()), ours.group_matcher(coarse), reverse=True
        )
        wanted = group_with_matcher(theirs.named_parameters(), theirs.group_matcher(coarse), reverse=True)
        assert {name: groups[name] for name in names} == {name: wanted[matching(name)] for name in names}
