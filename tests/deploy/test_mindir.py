"""MindIR files, also run by a process that imports MindSpore but not this package."""

import os
import subprocess
import sys
from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.train.mind_ir_pb2 import ModelProto
from support.reference import FIXTURES, SMALL, Case, random_weights

from msg_ms import MSGTransformer, UserError
from msg_ms.deploy import Reference, export_mindir
from msg_ms.deploy.classifier import choose_convolution
from msg_ms.models.variants import create_model
from msg_ms.ops import backend, use_backend

ELSEWHERE = """
import sys
import mindspore as ms
import numpy as np

cell = ms.nn.GraphCell(ms.load("model.mindir"))
images = np.load("images.npy")
np.savez("outputs.npz", *[cell(ms.Tensor(images[:n])).asnumpy() for n in (2, 1, 3)])
assert not any(name.split(".")[0] == "msg_ms" for name in sys.modules)
"""


def test_any_number_of_images_in_a_process_without_this_package(tmp_path):
    case = Case(FIXTURES / "options_win4_64.npz")
    with use_backend("composed"):
        model = case.model()
    x, expected = case.inputs()[0], case.arrays["logits"]
    rows = [0, 1, 0]
    reference = Reference(x, expected, (1, 2))
    export_mindir(model, tmp_path / "model.mindir", reference, None, metadata={"model_name": "options"})
    np.save(tmp_path / "images.npy", x[rows])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, env=environment, check=True, capture_output=True)
    with np.load(tmp_path / "outputs.npz") as outputs:
        for name, count in (("arr_0", 2), ("arr_1", 1), ("arr_2", 3)):
            assert np.abs(outputs[name] - expected[rows[:count]]).max() < 1e-5
    proto = ModelProto()
    proto.ParseFromString((tmp_path / "model.mindir").read_bytes())
    assert proto.user_info["model_name"] == "options" and proto.user_info["msg_ms_version"]
    assert (tmp_path / "model.mindir").stat().st_mode & 0o200  # MindSpore writes read-only files


def test_fixed_batch_convolutions_and_probabilities(tmp_path):
    with use_backend("composed"):
        model = random_weights(MSGTransformer(**SMALL))
    choose_convolution(model, "conv2d")
    reference = Reference.of(model, True, 2)
    assert np.abs(reference.outputs.sum(-1) - 1).max() < 1e-6
    export_mindir(model, tmp_path / "model.mindir", reference, 2, softmax=True)
    content = (tmp_path / "model.mindir").read_bytes()
    assert b"Conv2D" in content and b"Im2Col" not in content
    cell = nn.GraphCell(ms.load(str(tmp_path / "model.mindir")))
    assert np.abs(cell(Tensor(reference.images)).asnumpy() - reference.outputs).max() < 1e-5
    wrong = replace(reference, outputs=reference.outputs + np.float32(0.001))
    with pytest.raises(UserError, match=r"wrong\.mindir was not kept: its outputs in MindSpore"):
        export_mindir(model, tmp_path / "wrong.mindir", wrong, 2, softmax=True)
    assert [file.name for file in tmp_path.iterdir()] == ["model.mindir"]


def test_native_kernels_are_not_exported(tmp_path):
    with use_backend("native"):
        model = random_weights(MSGTransformer(**SMALL))
    assert backend.get_backend() != "native"
    reference = Reference.of(model, False, 1)
    with pytest.raises(UserError, match=r"model\.mindir was not kept: it contains native kernels"):
        export_mindir(model, tmp_path / "model.mindir", reference, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["msg_tiny", "msg_small", "msg_base"])
def test_the_papers_models(name, tmp_path):
    with use_backend("composed"):
        model = random_weights(create_model(name))
    reference = replace(Reference.of(model, False, 4), batches=(1, 4))
    print(export_mindir(model, tmp_path / "model.mindir", reference, None))
    cell = nn.GraphCell(ms.load(str(tmp_path / "model.mindir")))
    assert reference.difference(lambda x: cell(Tensor(x)).asnumpy()) < 1e-4
    assert np.abs(reference.outputs).max() > 1


@pytest.mark.slow
def test_any_name_and_folder_is_written(tmp_path):
    with use_backend("composed"):
        plain = random_weights(MSGTransformer(**SMALL))
    reference = Reference.of(plain, False, 1)
    for name in ("-my (1) a+=b\u4e2d", "\udcff"):
        path = tmp_path / f"{name} folder" / f"{name}.mindir"
        export_mindir(plain, path, reference, 1)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
