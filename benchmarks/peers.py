"""Run a model with one framework, in its own process, on request of the parent.

``python peers.py <JSON>`` with the fields of ``Job``. It prints lines of JSON: the first output when it is ready,
the seconds of n runs for each line "<n>" on its input, and its peak memory at the end.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

OPSET = 17  # of ONNX files


@dataclass
class Job:
    """A peer's work: ``task`` is "inference" or "training"; ``weights`` has the state dict, images and labels."""

    peer: str
    task: str
    model: str
    batch: int
    threads: int
    weights: str


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    with np.load(job.weights) as file:
        data = dict(file)
    state = {name[6:]: value for name, value in data.items() if name.startswith("state/")}
    run = PEERS[job.peer](job, state, data["images"], data["labels"])
    first = run()
    send({"first": np.asarray(first, np.float64).reshape(-1)[:4000].tolist()})
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begin)
        send({"seconds": seconds})
    send({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
    sys.stdout.flush()
    os._exit(0)  # some thread pools and compilers never end


def send(message: dict) -> None:
    print("\n" + json.dumps(message), flush=True)


def msg_ms(
    job: Job,
    state: dict,
    images: np.ndarray,
    labels: np.ndarray,
    backend: str = "native",
    precision: str = "float32",
) -> Callable:
    import mindspore as ms

    from msg_ms import optimize_for_inference

    model = msg_ms_model(job, state, backend)
    if job.task == "inference":
        # The other engines pack weights too.
        optimize_for_inference(model, strassen=precision == "float32", precision=precision)
        x = ms.Tensor(images)
        return lambda: model(x).asnumpy()
    return training_step(model, images, labels, precision)


def msg_ms_model(job: Job, state: dict, backend: str):
    from models import classifier

    from msg_ms.checkpoint import load_parameters
    from msg_ms.convert import convert_state_dict
    from msg_ms.engine.device import setup_device
    from msg_ms.ops import set_backend

    setup_device("CPU", 0)
    set_backend(backend)
    model = classifier(job.model, drop_path_rate=0.0)
    load_parameters({p.name: p for p in model.get_parameters()}, convert_state_dict(state), "the benchmark's weights")
    return model


def training_step(model, images: np.ndarray, labels: np.ndarray, precision: str = "float32") -> Callable:
    from msg_ms.config import AmpConfig, load_config
    from msg_ms.data.pipeline import drop_path_noise
    from msg_ms.engine.loss_scale import build_scaler
    from msg_ms.engine.optim import build_optimizer
    from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, build_step
    from msg_ms.models.precision import set_precision
    from msg_ms.tasks.classification import ClassificationLoss

    scaler = None
    if precision != "float32":
        set_precision(model, "O1", precision)
        scaler = build_scaler("O1", AmpConfig(dtype=precision))
    optimizer = build_optimizer(load_config(None).train, model.trainable_params())
    gradients = LossAndGradients(ClassificationLoss(model, 0.1), optimizer.targets, scaler)
    step = build_step(gradients, OptimizerStep(optimizer, 5.0, scaler), 0)
    draws = drop_path_noise(sum(model.depths), len(images), 0, 0)

    def run() -> tuple[float, float]:
        (loss, *_), norm = step.run([(images, labels, draws)], 1e-4)
        return loss, norm

    return run


def matrix_products(job: Job, state: dict, images: np.ndarray, labels: np.ndarray) -> Callable:
    """Run the model's matrix products alone, by MindSpore's MatMul."""
    import mindspore as ms
    from mindspore import Parameter, ParameterTuple, nn, ops
    from models import classifier

    from msg_ms.engine.device import setup_device

    setup_device("CPU", 0)
    model = classifier(job.model)
    shapes = []  # rows, in, out
    for i, (height, width, _) in enumerate(model.geometry):
        windows, c = height * width // model.window_size**2 * job.batch, model.dims[i]
        rows, hidden = windows * (model.window_size**2 + 1), int(c * model.mlp_ratio)
        if i == 0:
            shapes.append((height * width * job.batch, model.in_chans * 49, c))
        shapes += [(rows, c, 3 * c), (rows, c, c), (rows, c, hidden), (rows, hidden, c)] * model.depths[i]
        if i + 1 < len(model.dims):
            shapes.append((rows // 4, 9 * c, 2 * c))
    rng = np.random.RandomState(0)
    inputs = {s[:2]: ms.Tensor(rng.randn(*s[:2]).astype(np.float32)) for s in shapes}

    class Products(nn.Cell):
        def __init__(self):
            super().__init__()
            self.matmul = ops.MatMul(transpose_b=True)
            self.weights = ParameterTuple(
                [Parameter(rng.randn(n, k).astype(np.float32), name=f"w{i}") for i, (_, k, n) in enumerate(shapes)]
            )
            self.inputs = [inputs[s[:2]] for s in shapes]

        def construct(self, x):
            corners = ()
            for i in range(len(self.weights)):
                corners = (*corners, ops.slice(self.matmul(self.inputs[i], self.weights[i]), (0, 0), (1, 1)))
            return ops.cat(corners) + x

    products, zero = Products(), ms.Tensor(np.zeros(1, np.float32))
    return lambda: products(zero).asnumpy()


def torch_model(job: Job, state: dict):
    import torch
    from models import CLASSIFIERS
    from torch_msg import TorchMSGTransformer

    torch.set_num_threads(job.threads)
    model = TorchMSGTransformer(**CLASSIFIERS[job.model])
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()}, strict=True)
    return model


def torch_eager(
    job: Job, state: dict, images: np.ndarray, labels: np.ndarray, compiled: bool = False, bfloat16: bool = False
) -> Callable:
    import torch

    model, x = torch_model(job, state), torch.from_numpy(images)
    if job.task == "inference":
        model.eval()
        if bfloat16:  # everything, which is faster than autocast
            model, x = model.bfloat16(), x.bfloat16()
        if compiled:
            import torch._inductor.config

            torch._inductor.config.freezing = True  # weights become constants, packed once
            model = torch.compile(model)

        def run():
            with torch.inference_mode() if not compiled else torch.no_grad():
                return model(x).float().numpy()

        return run
    y = torch.from_numpy(labels).long()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(decay_groups(model), lr=1e-4, fused=True)
    forward = torch.compile(model) if compiled else model

    first = [True]

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = torch.nn.functional.cross_entropy(forward(x), y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        # PyTorch's own norm is off by 1e-4 for gradients of this size, so the exact norm is compared.
        exact = sum(p.grad.double().square().sum() for p in parameters).sqrt() if first else None
        norm = torch.nn.utils.clip_grad_norm_(parameters, 5.0, foreach=True)
        optimizer.step()
        return loss.item(), first.pop() * exact.item() if first else norm.item()

    return step


def decay_groups(model) -> list[dict]:
    def has_weight_decay(name: str, parameter) -> bool:
        table = "relative_position_bias_table" in name or "rel_pos_msg" in name
        return parameter.ndim > 1 and not name.endswith(".bias") and not table

    named = list(model.named_parameters())
    return [
        {"params": [p for n, p in named if has_weight_decay(n, p)], "weight_decay": 0.05},
        {"params": [p for n, p in named if not has_weight_decay(n, p)], "weight_decay": 0.0},
    ]


def onnxruntime(job: Job, state: dict, images: np.ndarray, labels: np.ndarray) -> Callable:
    import tempfile

    import onnxruntime as ort
    import torch

    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        model = torch_model(job, state).eval()
        torch.onnx.export(model, torch.from_numpy(images), file.name, dynamo=False, opset_version=OPSET)
        options = ort.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = ort.InferenceSession(file.name, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: images})[0]


def openvino(job: Job, state: dict, images: np.ndarray, labels: np.ndarray, precision: str = "f32") -> Callable:
    """Run the model that msg_ms exports: OpenVINO is faster with it than with PyTorch's export."""
    import openvino as ov

    from msg_ms.deploy.onnx_model import build_onnx

    network = build_onnx(msg_ms_model(job, state, "composed"), job.batch, OPSET, False, {}).SerializeToString()
    run = run_in_openvino(ov.Core().read_model(network), [images], job.threads, precision)
    return lambda: run()[0]


def run_in_openvino(network, inputs: list[np.ndarray], threads: int, precision: str) -> Callable:
    """Return a function that runs one of OpenVINO's models and returns its outputs."""
    import openvino as ov

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
    }
    request = ov.Core().compile_model(network, "CPU", settings).create_infer_request()
    tensors = [ov.Tensor(x) for x in inputs]  # without a copy at each call
    return lambda: list(request.infer(tensors, share_outputs=True).values())


PEERS = {
    "msg_ms": msg_ms,
    "msg_ms bf16": lambda *args: msg_ms(*args, precision="bfloat16"),
    "msg_ms fp16": lambda *args: msg_ms(*args, precision="float16"),
    "msg_ms composed": lambda *args: msg_ms(*args, backend="composed"),
    "matrix products": matrix_products,
    "PyTorch eager": torch_eager,
    "torch.compile": lambda *args: torch_eager(*args, compiled=True),
    "PyTorch bf16": lambda *args: torch_eager(*args, bfloat16=True),
    "ONNX Runtime": onnxruntime,
    "OpenVINO": openvino,
    "OpenVINO bf16": lambda *args: openvino(*args, precision="bf16"),
}

if __name__ == "__main__":
    main()
