"""ONNX files in ONNX Runtime against the outputs of the paper's code."""

from dataclasses import replace

import numpy as np
import pytest
from mindspore import Tensor
from support.reference import FIXTURES, SMALL, Case, cases, random_weights

from msg_ms import MSGTransformer, UserError
from msg_ms.deploy import Reference, export_onnx
from msg_ms.models.variants import create_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
onnx_model = pytest.importorskip("msg_ms.deploy.onnx_model")
onnx_layers = pytest.importorskip("msg_ms.deploy.onnx_layers")

STANDARD = {"Add", "Concat", "Conv", "Div", "Erf", "Expand", "Gemm", "LayerNormalization", "MatMul", "Mul"}
STANDARD |= {"ReduceMean", "Reshape", "Shape", "Slice", "Softmax", "Split", "Transpose"}


def run(proto, images: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.path.stem)
def test_case_with_any_number_of_images(case):
    proto = onnx_model.build_onnx(case.model(), None, 17, False, {})
    x, expected = case.inputs()[0], case.arrays["logits"]
    for rows in ([0], [0, 1], [1, 0, 1], [0, 0, 1, 1]):
        assert np.abs(run(proto, x[rows]) - expected[rows]).max() < 1e-5
    assert {node.op_type for node in proto.graph.node} <= STANDARD
    assert {node.domain for node in proto.graph.node} == {""}
    constants = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    assert constants["layers.0.blocks.0.mlp.fc1.weight"] == tuple(case.model().layers[0].blocks[0].mlp.fc1.weight.shape)
    assert constants["layers.0.blocks.0.attn.position_bias"][1] == case.arguments["num_heads"][0]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("opset", [18, 20, 21])
def test_operator_sets_agree(opset):
    case = Case(FIXTURES / "options_win4_64.npz")
    proto = onnx_model.build_onnx(case.model(), 2, opset, False, {})
    assert proto.opset_import[0].version == opset
    assert ("Gelu" in {node.op_type for node in proto.graph.node}) == (opset >= 20)
    assert np.abs(run(proto, case.inputs()[0]) - case.arrays["logits"]).max() < 1e-5


def test_a_fixed_batch_leaves_nothing_to_run_time():
    case = Case(FIXTURES / "no_shuffle_win4_64.npz")
    proto = onnx_model.build_onnx(case.model(), 2, 17, False, {})
    assert "Shape" not in {node.op_type for node in proto.graph.node}
    shapes = onnx.shape_inference.infer_shapes(proto).graph.value_info
    assert len(shapes) == sum(len(node.output) for node in proto.graph.node) - 1
    assert all(dim.dim_value > 0 for info in shapes for dim in info.type.tensor_type.shape.dim)
    assert np.abs(run(proto, case.inputs()[0]) - case.arrays["logits"]).max() < 1e-5


OPTIONS = [
    dict(img_size=(32, 64), ape=True, num_classes=0),  # two windows in the last stage: mean of their MSG tokens
    dict(img_size=(64, 32), patch_norm=False, shuffle_size=(1, 1), in_chans=2),
    dict(ape=True, qkv_bias=False, qk_scale=0.7, mlp_ratio=1.5, manip_type="none"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=["ape_features", "no_norm_no_regions", "ape_no_shuffle"])
def test_options_against_the_model(options, tmp_path):
    model = random_weights(MSGTransformer(**{**SMALL, **options}))
    softmax = options.get("num_classes") != 0
    reference = Reference.of(model, softmax, None)
    line = export_onnx(model, tmp_path / "model.onnx", reference, None, 17, softmax, {"model_name": "small"})
    assert line.endswith("batch 1 and 3") and np.abs(reference.outputs).max() > 0.3
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert reference.difference(lambda x: session.run(None, {"images": x})[0]) < 1e-5
    (output,) = session.get_outputs()
    assert output.name == ("probabilities" if softmax else "features")
    assert session.get_modelmeta().custom_metadata_map == {"model_name": "small"}


def test_a_file_with_other_outputs_is_not_kept(tmp_path, monkeypatch):
    model = random_weights(MSGTransformer(**SMALL))
    reference = Reference.of(model, False, 5)
    assert reference.images.shape[0] == 4
    export_onnx(model, tmp_path / "good.onnx", reference, 5, 17)
    monkeypatch.setattr(onnx_layers, "EPSILON", 2e-3)
    with pytest.raises(UserError, match=r"model\.onnx was not kept: its outputs in ONNX Runtime .* differ"):
        export_onnx(model, tmp_path / "model.onnx", reference, 5, 17)
    with pytest.raises(UserError, match="opset 16: the installed onnx writes 17 to"):
        export_onnx(model, tmp_path / "model.onnx", reference, 5, 16)
    nothing = replace(reference, outputs=reference.outputs[:, :2])
    with pytest.raises(UserError, match=r"output shape \(5, 3\) for 5 images, expected \(5, 2\)"):
        export_onnx(model, tmp_path / "model.onnx", nothing, 5, 17)
    model.norm.beta.set_data(Tensor(np.full(model.norm.beta.shape, np.nan, np.float32)))
    with pytest.raises(UserError, match="model outputs are not finite"):
        Reference.of(model, False, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["good.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["msg_tiny", "msg_small", "msg_base"])
def test_the_papers_models(name, tmp_path):
    model = random_weights(create_model(name))
    reference = replace(Reference.of(model, False, 4), batches=(1, 4))
    print(export_onnx(model, tmp_path / "model.onnx", reference, None, 17))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert reference.difference(lambda x: session.run(None, {"images": x})[0]) < 1e-4
    assert np.abs(reference.outputs).max() > 1
