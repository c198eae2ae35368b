"""Compare a detector's networks with PyTorch eager, torch.compile and OpenVINO: python benchmarks/detector_networks.py.

Backbone, FPN and RPN head on an image, three box heads on given features of 1,000 regions and three mask heads on those
of 100: what is left without the selection of regions. It needs Linux, and skips peers that are missing. Outputs are
compared before any timing; the rest is as in ``detector.py``. ``--bfloat16`` compares bfloat16 with single precision
and with OpenVINO in bfloat16, its default on CPUs with the instructions, and prints the errors of both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from children import Child, answer, argument_parser, print_ratios, timed
from detector import BFLOAT16, PEERS, TOLERANCE, msg_ms_model, prepare, thinned, torch_model
from installed import installed
from models import detector_arguments
from rounds import cpu

OPENVINO = "OpenVINO from PyTorch"
OPENVINO_BFLOAT16 = f"{OPENVINO} bf16"


def main() -> None:
    parser = argument_parser(__doc__, (800, 1344))
    parser.add_argument("--bfloat16", action="store_true", help="compare inference in bfloat16")
    args = parser.parse_args()
    if args.child:
        return run_child(args)
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(Path(folder), args)
        print(f"{args.model}, {args.size[0]} x {args.size[1]}, batch 1, {args.threads} threads, {cpu()}")
        compare_networks(data, args)


def compare_networks(data: str, args) -> None:
    """Print the time of the networks alone relative to each peer's, after comparing their outputs."""
    names = (BFLOAT16, PEERS[0], OPENVINO_BFLOAT16) if args.bfloat16 else (*PEERS, OPENVINO)
    peers = [Child(name, data, args, Path(__file__)) for name in installed(names)]
    outputs = [[np.array(x) for x in peer.receive("first")] for peer in peers]
    if args.bfloat16:
        print_errors({peer.name: found for peer, found in zip(peers, outputs, strict=True)})
    else:
        require_equal(peers, outputs)
    for _ in range(args.rounds):
        for peer in peers:
            peer.seconds.append(peer.ask("whole"))
    print_ratios(peers)


def largest(difference: np.ndarray, values: np.ndarray) -> float:
    """Return the largest difference relative to the largest value."""
    return float(np.abs(difference).max() / np.abs(values).max())


def require_equal(peers: list[Child], outputs: list[list[np.ndarray]]) -> None:
    """Exit unless the outputs of all peers are equal up to rounding in single precision."""
    for peer, other in zip(peers[1:], outputs[1:], strict=True):
        error = max(largest(a - b, b) for a, b in zip(outputs[0], other, strict=True))
        print(f"outputs differ from those of {peer.name} by at most {error:.1e} of the largest")
        if not error < TOLERANCE:
            raise SystemExit("no timing")


def print_errors(outputs: dict[str, list[np.ndarray]]) -> None:
    """Print the errors of the outputs in bfloat16 against our single precision, by part: largest, root mean square."""
    single = outputs.pop(PEERS[0])
    rpn = len(single) - 9  # before the six outputs of the box heads and the three of the mask heads
    parts = {"RPN": range(rpn), "boxes": range(rpn, rpn + 6), "masks": range(rpn + 6, rpn + 9)}
    for name, found in outputs.items():
        for part, indices in parts.items():
            errors = [(found[i] - single[i], single[i]) for i in indices]
            most = max(largest(error, values) for error, values in errors)
            mean = max(float(np.sqrt((error**2).mean() / (values**2).mean())) for error, values in errors)
            print(f"{name}: {part}: errors of at most {most:.1e} of the largest, {mean:.1e} in root mean square")


def run_child(args) -> None:
    own = args.child in (PEERS[0], BFLOAT16)
    prefix = "own/" if own else "state/"
    with np.load(args.data) as file:
        data = {name: file[name] for name in file.files if name.startswith(prefix)}
    run = (msg_ms_networks if own else torch_networks)(args, data)
    answer([thinned(x).tolist() for x in run()], {"whole": lambda: timed(run)})


def given(args) -> list[np.ndarray]:
    """Return the image and the regions' features."""
    rng, (_, s) = np.random.RandomState(0), detector_arguments(args.model)
    boxes = (s.test_proposals, s.fpn_channels, s.box_size, s.box_size)
    masks = (s.max_detections, s.fpn_channels, s.mask_size, s.mask_size)
    return [rng.standard_normal(shape).astype(np.float32) for shape in ((1, 3, *args.size), boxes, masks)]


def msg_ms_networks(args, data: dict) -> Callable:
    """Return a function that runs the networks and returns their outputs."""
    from mindspore import Tensor, nn

    class Networks(nn.Cell):
        def __init__(self, model):
            super().__init__(auto_prefix=False)
            self.model = model

        def construct(self, image, box_features, mask_features):
            maps = self.model.neck(self.model.backbone(image))
            logits, deltas = self.model.rpn_head(maps)
            outputs = (*logits, *deltas)
            for head in self.model.roi_head.bbox_head:
                outputs = (*outputs, *head(box_features))
            for head in self.model.roi_head.mask_head:
                outputs = (*outputs, head(mask_features))
            return outputs

    networks = Networks(msg_ms_model(args, data)).set_train(False)
    inputs = [Tensor(x) for x in given(args)]
    return lambda: [x.asnumpy() for x in networks(*inputs)]


def torch_networks(args, data: dict) -> Callable:
    """Return a function that runs the networks and returns their outputs."""
    import torch

    class Networks(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, image, box_features, mask_features):
            maps = self.model.neck(self.model.backbone(image))
            logits, deltas = zip(*self.model.rpn_head(maps), strict=True)
            boxes = [x for head in self.model.roi_head.bbox_head for x in head(box_features)]
            masks = [head(mask_features) for head in self.model.roi_head.mask_head]
            return (*logits, *deltas, *boxes, *masks)

    networks = Networks(torch_model(args, data)).eval()
    inputs = [torch.from_numpy(x) for x in given(args)]
    if args.child in (OPENVINO, OPENVINO_BFLOAT16):
        import openvino as ov
        from peers import run_in_openvino

        precision = "bf16" if args.child == OPENVINO_BFLOAT16 else "f32"
        network = ov.convert_model(networks, example_input=tuple(inputs), input=[tuple(x.shape) for x in inputs])
        return run_in_openvino(network, [x.numpy() for x in inputs], args.threads, precision)

    @torch.no_grad()
    def run() -> list[np.ndarray]:
        return [x.numpy() for x in networks(*inputs)]

    return run


if __name__ == "__main__":
    main()
