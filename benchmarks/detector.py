"""Compare inference of a detector on one real-sized image with PyTorch: time, peak memory and share of each part.

``python benchmarks/detector.py`` needs Linux, and skips PyTorch where it is not installed. All peers compute the same
outputs; that is checked before any result is printed. Each runs in a process of its own, and their rounds alternate.
Peak memory is a whole process's; "until the first result" includes compilation. PyTorch's RoIAlign and NMS are
torchvision's if its operators load. With torch.compile the networks are compiled, and not the selection of regions
between them.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from children import Child, answer, argument_parser, peak_mb, print_ratios, timed
from installed import installed
from models import detector, detector_arguments
from rounds import cpu

PEERS, BFLOAT16 = ("msg_ms", "PyTorch eager", "torch.compile"), "msg_ms bf16"
PARTS = ("backbone", "FPN", "RPN", "boxes", "post-processing", "masks")
TOLERANCE, EQUAL_SHARE = 1e-4, 0.95


def main() -> None:
    parser = argument_parser(__doc__, (800, 1344))
    parser.add_argument("--parts", action="store_true", help="also the share of each part")
    parser.add_argument("--bfloat16", action="store_true", help="also the time of inference in bfloat16")
    parser.add_argument("--cached", action="store_true", help="measure a second start, with MindSpore's compile cache")
    args = parser.parse_args()
    if args.child:
        return run_child(args)
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(Path(folder), args)
        print(f"{args.model}, {args.size[0]} x {args.size[1]}, batch 1, {args.threads} threads, {cpu()}")
        if args.cached:
            os.environ |= {"MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": folder}
            filling = Child(PEERS[0], data, args, Path(__file__))
            filling.receive("first")
            filling.close()
        peers = [Child(name, data, args, Path(__file__)) for name in installed(PEERS)]
        in_bfloat16 = [Child(BFLOAT16, data, args, Path(__file__))] if args.bfloat16 else []
        for peer in in_bfloat16:
            peer.receive("first")
        outputs = [peer.receive("first") for peer in peers]
        start = [peer.ask("peak_mb") for peer in peers]
        for _ in range(args.rounds):
            for peer in (*peers, *in_bfloat16):
                peer.seconds.append(peer.ask("whole"))
        memory = [peer.ask("peak_mb") for peer in peers]
        # Only now: the pyramids need a graph of their own.
        described = [output | {"maps": peer.ask("maps")} for peer, output in zip(peers, outputs, strict=True)]
        for peer, other in zip(peers[1:], described[1:], strict=True):
            compare_outputs(described[0], other, peer.name)
        print_ratios(peers)
        for peer in in_bfloat16:
            print_ratios([peer, *peers])
        overall = [max(pair) for pair in zip(start, memory, strict=True)]
        rows = {"peak memory of the process": overall, "until the first result": start, "afterwards": memory}
        for name, (own, *others) in rows.items():
            for other in others[:1]:
                print(f"{name}: {own / other:.2f} of PyTorch eager's ({own:.0f} and {other:.0f} MB)")
        if args.parts:
            print_parts(*(peer.ask("parts") for peer in peers[:2]))


def print_parts(own: dict[str, float], other: dict[str, float] | None = None) -> None:
    print(f"{'part':18}{'share of our time':>20}{'ratio to PyTorch eager' if other else '':>26}")
    for name in PARTS:
        ratio = f"{own[name] / other[name]:26.2f}" if other else ""
        print(f"{name:18}{own[name] / sum(own.values()):20.0%}{ratio}")


def prepare(folder: Path, args) -> str:
    """Write weights under mmdetection's names and an image; class scores are spread, so that all slots are used."""
    from msg_ms.convert import export_state_dict
    from msg_ms.convert.detection_rules import DETECTION_RULES
    from msg_ms.engine.device import setup_device

    setup_device("CPU", 0)
    values = {p.name: p.asnumpy() for p in detector(args.model).get_parameters()}
    for name in values:
        if "fc_cls" in name and name.endswith("weight"):
            values[name] *= 60
        if name.endswith(("rpn_cls.weight", "rpn_reg.weight")):
            values[name] *= 10
    arrays = {f"state/{k}": v for k, v in export_state_dict(values, buffers=False, rules=DETECTION_RULES).items()}
    rng = np.random.RandomState(0)
    arrays["image"] = rng.standard_normal((1, 3, *args.size)).astype(np.float32)
    arrays |= {f"own/{name}": value for name, value in values.items()}
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


def compare_outputs(own: dict, other: dict, name: str) -> None:
    """Exit unless the pyramids and nearly all detections are equal; near-ties of scores order proposals differently."""
    for a, b in zip(own["maps"], other["maps"], strict=True):
        error = np.abs(np.subtract(a, b)).max() / np.abs(b).max()
        if not error < TOLERANCE:
            raise SystemExit(f"the pyramids differ by {error:.1e}; no timing")
    boxes, others = (np.array(x["boxes"]) for x in (own, other))
    labels, other_labels = (np.array(x["labels"]) for x in (own, other))
    gaps = np.abs(boxes[:, None] - others).max(-1) + 1e6 * (labels[:, None] != other_labels)
    masks, other_masks = (np.array(x["masks"]) for x in (own, other))
    found = gaps.min(1) < 0.1
    error = np.abs(masks - other_masks[gaps.argmin(1)])[found].max()
    print(f"{found.sum()} of {len(boxes)} detections are those of {name}, with masks' means within {error:.1e}")
    if len(boxes) != len(others) or found.mean() < EQUAL_SHARE or not error < 1e-3:
        raise SystemExit(f"the detections differ: {len(boxes)} and {len(others)}; no timing")


def run_child(args) -> None:
    own = args.child in (PEERS[0], BFLOAT16)
    prefix = "own/" if own else "state/"
    with np.load(args.data) as file:
        data = {name: file[name] for name in file.files if name == "image" or name.startswith(prefix)}
    first, maps, whole, parts = (msg_ms_detector if own else torch_detector)(args, data)
    requests: dict[str, Callable] = {
        "whole": lambda: timed(whole),
        "maps": lambda: [thinned(x).tolist() for x in maps()],
        "parts": parts,
        "peak_mb": peak_mb,
    }
    answer(first(), requests)


def thinned(x: np.ndarray) -> np.ndarray:
    return x.ravel()[:: max(1, x.size // 1000)]


def describe(boxes, labels, masks) -> dict:
    means = masks.reshape(len(masks), -1).mean(1)
    return {"boxes": boxes.tolist(), "labels": labels.tolist(), "masks": means.tolist()}


def msg_ms_model(args, data: dict):
    from mindspore import Tensor

    from msg_ms import optimize_for_inference
    from msg_ms.engine.device import setup_device

    setup_device("CPU", 0)
    model = detector(args.model)
    for parameter in model.get_parameters():
        parameter.set_data(Tensor(data.pop(f"own/{parameter.name}")))
    precision = "bfloat16" if args.child == BFLOAT16 else "float32"
    optimize_for_inference(model, strassen=True, precision=precision)  # PyTorch packs weights, too
    return model


def msg_ms_detector(args, data: dict) -> tuple[Callable, Callable, Callable, Callable]:
    from mindspore import Tensor, nn

    model = msg_ms_model(args, data)
    image = Tensor(data["image"])
    shape, factor = Tensor(np.float32([args.size])), Tensor(np.ones((1, 4), np.float32))

    class Part(nn.Cell):
        def __init__(self, run):
            super().__init__(auto_prefix=False)
            self.model, self.run = model, run

        def construct(self, *inputs):
            return self.run(self.model, *inputs)

    def first() -> dict:
        boxes, _, labels, masks, used = (x.asnumpy()[0] for x in model(image, shape, factor))
        return describe(boxes[used], labels[used], masks[used])

    def maps() -> list[np.ndarray]:
        return [x.asnumpy() for x in Part(_pyramid).set_train(False)(image)]

    def part(run: Callable, *inputs) -> tuple:
        cell = Part(run).set_train(False)
        outputs = cell(*inputs)
        seconds = statistics.median(timed(lambda: wait(cell(*inputs))) for _ in range(5))
        return seconds, outputs

    def parts() -> dict:
        levels, seconds = len(model.settings.strides), {}
        seconds["backbone"], maps = part(_backbone, image)
        seconds["FPN"], maps = part(_neck, *maps)
        seconds["RPN"], (proposals, _, used) = part(_rpn, shape, *maps)
        seconds["boxes"], cascade = part(_boxes, proposals, shape, *maps)
        regions, logits, deltas = cascade
        inputs = (regions[-1], deltas[-1], used, shape, factor, *logits)
        seconds["post-processing"], (boxes, _, pairs, _) = part(_post, *inputs)
        seconds["masks"], _ = part(_masks, boxes, pairs, factor, *maps[:levels])
        return seconds

    return first, maps, lambda: model(image, shape, factor)[-1].asnumpy(), parts


# MindSpore compiles named functions, but no lambdas.
def _pyramid(model, image):
    return model.neck(model.backbone(image))


def _backbone(model, image):
    return model.backbone(image)


def _neck(model, *maps):
    return model.neck(maps)


def _boxes(model, proposals, shape, *maps):
    return model.roi_head.cascade(maps, proposals, shape)


def _rpn(model, shape, *maps):
    return model.test_proposals(*model.rpn_head(maps), shape)


def _post(model, regions, deltas, used, shape, factor, *logits):
    return model.detections(*model.scored_boxes(regions, logits, deltas, used, shape, factor))


def _masks(model, boxes, pairs, factor, *maps):
    return model.mask_probabilities(maps, boxes, pairs % model.settings.num_classes, factor)


def wait(outputs) -> None:
    while isinstance(outputs, tuple | list):
        outputs = outputs[-1]
    outputs.asnumpy()


def torch_model(args, data: dict):
    import torch
    from torch_detector import TorchDetector

    torch.set_num_threads(args.threads)
    model = TorchDetector(*detector_arguments(args.model)).eval()
    state = {name[6:]: torch.from_numpy(data.pop(name)) for name in list(data) if name.startswith("state/")}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise SystemExit(f"weights don't fit: {missing[:3]} {unexpected[:3]}")
    if args.child == "torch.compile":
        import torch._inductor.config

        torch._inductor.config.freezing = True  # weights become constants, packed once
        heads = (*model.roi_head.bbox_head, *model.roi_head.mask_head)
        for network in (model.backbone, model.neck, model.rpn_head, *heads):
            network.compile()
    return model


def torch_detector(args, data: dict) -> tuple[Callable, Callable, Callable, Callable]:
    import torch

    model = torch_model(args, data)
    image, size = torch.from_numpy(data["image"]), args.size

    @torch.no_grad()  # the mode that torch.compile freezes weights in
    def first() -> dict:
        boxes, _, labels, masks = (x.numpy() for x in model(image, size))
        return describe(boxes, labels, masks)

    @torch.no_grad()
    def maps() -> list[np.ndarray]:
        return [x.numpy() for x in model.neck(model.backbone(image))]

    @torch.no_grad()
    def parts() -> dict:
        rounds: dict[str, list[float]] = {name: [] for name in PARTS}

        def part(name: str, run: Callable):
            begin = time.perf_counter()
            outputs = run()
            rounds[name].append(time.perf_counter() - begin)
            return outputs

        for _ in range(5):
            maps = part("backbone", lambda: model.backbone(image))
            maps = part("FPN", lambda maps=maps: model.neck(maps))
            proposals = part("RPN", lambda maps=maps: model.rpn(maps, size))
            found = part("boxes", lambda maps=maps, proposals=proposals: model.boxes(maps, proposals, size))
            boxes, _, labels = part("post-processing", lambda found=found: model.post(*found))
            part("masks", lambda maps=maps, boxes=boxes, labels=labels: model.masks(maps, boxes, labels))
        return {name: statistics.median(seconds) for name, seconds in rounds.items()}

    @torch.no_grad()
    def whole() -> None:
        model(image, size)

    return first, maps, whole, parts


if __name__ == "__main__":
    main()
