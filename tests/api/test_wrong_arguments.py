"""Every public call with wrong kinds and values of every argument: it works or ends in a UserError, never otherwise."""

import inspect
import random

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from mindspore.nn.utils import no_init_parameters
from support.wrong_values import VALUES, random_value, try_values

import msg_ms
from msg_ms import convert, ops
from msg_ms.checkpoint import (
    load_for_inference,
    load_pretrained,
    load_weights,
    parameters_by_name,
    read_checkpoint,
    read_metadata,
    to_numpy,
    write_checkpoint,
)
from msg_ms.models.detection.settings import DetectorSettings

SMALL = dict(img_size=32, embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4, shuffle_size=(2, 1))
FOUR = dict(img_size=32, embed_dim=16, depths=(1,) * 4, num_heads=(1,) * 4, window_size=4, shuffle_size=(1,) * 4)
IN_OTHER_FILES = {
    "load": "test_train",
    "train": "test_train",
    "TrainedModel": "test_train",
    "Run": "test_train",
    "UserError": "",
    "__version__": "",
}


def parameters(function):
    return [n for n, p in inspect.signature(function).parameters.items() if n != "self" and p.kind is not p.VAR_KEYWORD]


MODEL = parameters(msg_ms.MSGTransformer)
BUILDERS = {
    "MSGTransformer": (SMALL, MODEL),
    "create_model": (dict(model_name="msg_tiny", **SMALL), [*MODEL, "out_norm", "pad", "out_indices"]),
    "MSGFeatures": (SMALL, MODEL),
    "list_models": ({}, []),
    "list_detectors": ({}, []),
    "create_detector": (
        dict(model_name="cascade_mask_rcnn_msg_tiny", **FOUR, fpn_channels=8, fc_channels=8),
        [*MODEL, *parameters(DetectorSettings)],
    ),
}
SLOW = ("create_detector",)


def names_of(function, more=()):
    return sorted({*parameters(function), *more})


def images(*shape: int) -> Tensor:
    return Tensor(np.zeros(shape, np.float32))


def small_model():
    return msg_ms.MSGTransformer(**SMALL, num_classes=3).set_train(False)


def methods(model):
    """The calls that run a graph or change a model, with right arguments and the names of those to replace."""
    x = images(1, 3, 32, 32)
    return (
        (model, {}, ["x"]),
        (model, dict(x=x), ["drop_path_noise"]),
        (model.forward_features, {}, ["x"]),
        (model.forward_features, dict(x=x), ["drop_path_noise", "pooled"]),
        (model.forward_head, {}, ["x"]),
        (model.forward_head, dict(x=images(1, 32)), ["pre_logits"]),
        (model.forward_intermediates, {}, ["x"]),
        (model.forward_intermediates, dict(x=x), ["norm", "stop_early", "output_fmt", "intermediates_only"]),
        (model.reset_classifier, dict(num_classes=2), ["global_pool"]),
        (model.set_grad_checkpointing, {}, ["enable"]),
        (model.group_matcher, {}, ["coarse"]),
        (msg_ms.optimize_for_inference, {}, ["model"]),
        (msg_ms.optimize_for_inference, dict(model=model), ["strassen", "precision"]),
    )


def file_calls(folder):
    """The functions of files, conversion and operators, with right arguments for a small model."""
    model = small_model()
    arrays = to_numpy(parameters_by_name(model.get_parameters()))
    torch = convert.export_state_dict(arrays)
    shapes = {name: value.shape for name, value in arrays.items()}
    architecture = convert.infer_architecture(arrays)
    file, other = folder / "model.ckpt", folder / "model.pth"
    write_checkpoint(file, arrays)
    convert.write_torch_file(other, torch)
    return {
        "read_checkpoint": (read_checkpoint, dict(path=file)),
        "read_metadata": (read_metadata, dict(path=file)),
        "write_checkpoint": (write_checkpoint, dict(path=folder / "written.ckpt", arrays=arrays)),
        **{f.__name__: (f, dict(model=model, path=file)) for f in (load_weights, load_pretrained, load_for_inference)},
        "set_backend": (ops.set_backend, dict(choice="auto")),
        "use_backend": (lambda choice: ops.use_backend(choice).__enter__(), dict(choice="auto")),
        "read_torch_file": (convert.read_torch_file, dict(path=other)),
        "write_torch_file": (convert.write_torch_file, dict(path=folder / "written.pth", state=torch)),
        "convert_state_dict": (convert.convert_state_dict, dict(state=torch)),
        "export_state_dict": (convert.export_state_dict, dict(state=arrays)),
        "converts": (convert.converts, dict(state=torch, side="torch")),
        "dropped_names": (convert.dropped_names, dict(state=torch)),
        "check_buffers": (convert.check_buffers, dict(state=torch, converted=arrays)),
        "check_names_and_shapes": (convert.check_names_and_shapes, dict(weights=arrays, expected=shapes)),
        "infer_architecture": (convert.infer_architecture, dict(state=arrays)),
        "variant_name": (convert.variant_name, dict(architecture=architecture)),
    }


def is_wrong_for_a_graph(value):
    """Values that fit would compile a graph."""
    return not isinstance(value, bool | type(None))


def test_settings_of_detectors():
    refused, failures = try_values(DetectorSettings, {}, parameters(DetectorSettings))
    assert not failures, "\n".join(failures)
    assert refused > 300


# A detector takes half a second to build.
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in sorted(BUILDERS)])
def test_builders(name):
    call = getattr(msg_ms, name)
    arguments, more = BUILDERS[name]
    with no_init_parameters(), ops.use_backend("composed"):
        refused, failures = try_values(call, arguments, [n for n in names_of(call, more) if n != "arguments"])
    assert not failures, "\n".join(failures)
    assert refused > 20


def test_methods_of_models():
    model = small_model()
    wrong = [value for value in VALUES if is_wrong_for_a_graph(value)]
    for call, arguments, names in methods(model):
        refused, failures = try_values(call, arguments, names, wrong)
        assert not failures, "\n".join(failures)
        assert refused == len(names) * len(wrong), (call, names)
    for call, name in (
        (model.reset_classifier, "num_classes"),
        (model.forward_intermediates, "indices"),
        *((getattr(model.feature_info, name), "idx") for name in ("channels", "reduction", "module_name")),
    ):
        refused, failures = try_values(call, {"x": 0} if name == "indices" else {}, [name])
        assert not failures and refused > 10, "\n".join(failures) or call


def test_files_conversion_and_operators(tmp_path, monkeypatch):
    monkeypatch.setattr(ops.backend, "_chosen", None)
    calls = file_calls(tmp_path)
    assert {name for name in convert.__all__ if name[0].islower()} <= set(calls)
    before = sorted(tmp_path.iterdir())
    for name, (call, arguments) in calls.items():
        names = list(arguments) if name == "use_backend" else names_of(call)
        refused, failures = try_values(call, arguments, [n for n in names if n != "self"])
        assert not failures and refused > 10, name + "\n".join(failures)
    written = {path.name for path in set(tmp_path.iterdir()) - set(before)}
    assert written <= {"written.ckpt", "written.pth", "x"}


def test_every_public_name_is_called():
    covered = {*BUILDERS, "optimize_for_inference", *IN_OTHER_FILES}
    assert set(msg_ms.__all__) == covered


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_random_values(seed, tmp_path, monkeypatch):
    """Random values of every kind for every argument, and for two arguments of the builders at once."""
    monkeypatch.setattr(ops.backend, "_chosen", None)
    draws = random.Random(seed)
    failures, refused = [], 0

    def try_all(call, arguments, names, count, keep=lambda value: True):
        nonlocal refused
        values = [value for value in (random_value(draws) for _ in range(count)) if keep(value)]
        more, found = try_values(call, arguments, names, values)
        refused += more
        failures.extend(f"{getattr(call, '__name__', call)}: {failure}" for failure in found)

    model = small_model()
    with no_init_parameters():
        for name, (arguments, more) in BUILDERS.items():
            call = getattr(msg_ms, name)
            names = [n for n in names_of(call, more) if n != "arguments"]
            try_all(call, arguments, names, 40)
            for other in names:
                try_all(call, {**arguments, other: random_value(draws)}, [draws.choice(names)], 4)
    for call, arguments, names in methods(model):
        try_all(call, arguments, names, 60, is_wrong_for_a_graph)
    for name, (call, arguments) in file_calls(tmp_path).items():
        try_all(call, arguments, list(arguments) if name == "use_backend" else names_of(call), 60)
    assert not failures, "\n".join(failures)
    assert refused > 2000


def test_random_values_are_not_all_refused():
    """The values are neither all right nor all wrong: a check that refuses everything would be found."""
    with no_init_parameters():
        refused, failures = try_values(
            msg_ms.MSGTransformer, SMALL, ["mlp_ratio"], [random_value(random.Random(i)) for i in range(60)]
        )
    assert not failures and 20 < refused < 60 and ms.get_context("mode") == ms.GRAPH_MODE
