"""Average precision of boxes and masks by pycocotools, exact on any number of ranks."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor, nn
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..data.coco.split import CocoSplit
from ..data.pipeline import Batch
from ..engine.ranks import Ranks
from ..engine.task import Metric, Metrics
from ..files import atomic_write
from ..models.detection.cascade_rcnn import to_detections
from ..report.average_precision import Accumulated
from .result_files import check_results, list_begins_with

KINDS = {"bbox": "box", "segm": "mask"}  # pycocotools' name and the one in words
# pycocotools' twelve numbers; mmdetection's names for the first three. A slash keeps the others out of the curves.
NUMBERS = (
    *("mAP", "mAP_50", "mAP_75", "/mAP_s", "/mAP_m", "/mAP_l"),
    *("/AR_1", "/AR_10", "/AR_100", "/AR_s", "/AR_m", "/AR_l"),
)
HEADLINES = {"mAP": "AP", "mAP_50": "AP50", "mAP_75": "AP75"}
METRICS = tuple(
    Metric(f"{kind}_{number}", f"{word} {title}", "{:.3f}")
    for kind, word in KINDS.items()
    for number, title in HEADLINES.items()
)
BOX_METRICS = tuple(metric for metric in METRICS if metric.key.startswith("bbox"))  # of a detector without masks
BOX_KEYS, MASK_KEY = {"image_id", "category_id", "bbox", "score"}, "segmentation"  # of a result


def metric_key(kind: str, number: str) -> str:
    """Return the key of a number: ``bbox_mAP``, ``bbox/mAP_s``."""
    return kind + number if number.startswith("/") else f"{kind}_{number}"


def check_detections(path: Path, masks: bool = True) -> None:
    """Raise UserError if a file can't be written, or exists and holds no detections, with masks or not."""

    def fits(row: dict[str, Any]) -> bool:
        return row.keys() == BOX_KEYS | {MASK_KEY} or (not masks and row.keys() == BOX_KEYS)

    content = "detections with masks" if masks else "detections"
    check_results(path, (".json",), lambda text: list_begins_with(text, fits), content)


class CocoNetwork(nn.Cell):
    """A detector on the arrays of an evaluation batch.

    Args:
        model: The detector; its parameters keep their names.
    """

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(
        self,
        images: Tensor,
        img_shapes: Tensor,
        scale_factors: Tensor,
        ori_shapes: Tensor,
        index: Tensor,
        valid: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return boxes, scores, classes, mask probabilities if there are masks, and which are used."""
        return self.model(images, img_shapes, scale_factors)


class Detected:
    """The detections of many images in compact form.

    Attributes:
        images: Index of each detection's image, int32.
        boxes: float32 (N, 4), (x1, y1, x2, y2) in pixels of the original image.
        scores: float32 (N,).
        labels: Classes, int32 (N,).
        counts: Each mask's run lengths, COCO's compressed text; empty without masks.
    """

    FIELDS = {"images": np.int32, "boxes": np.float32, "scores": np.float32, "labels": np.int32}

    def __init__(self):
        self.parts: dict[str, list[np.ndarray]] = {name: [] for name in self.FIELDS}
        self.counts: list[str] = []

    def add(
        self, image: int, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, masks: list[dict] | None
    ) -> None:
        """Add the detections of one image."""
        values = {"images": np.full(len(boxes), image), "boxes": boxes, "scores": scores, "labels": labels}
        for name, kind in self.FIELDS.items():
            self.parts[name].append(np.asarray(values[name], kind))
        self.counts += [mask["counts"] for mask in masks or ()]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fields as one array each."""
        empty = {name: np.zeros((0, 4) if name == "boxes" else 0, kind) for name, kind in self.FIELDS.items()}
        return {name: np.concatenate([empty[name], *self.parts[name]]) for name in self.FIELDS}

    def to_bytes(self) -> bytes:
        """Return everything as bytes."""
        stream = io.BytesIO()
        lengths = np.array([len(text) for text in self.counts], np.int32)
        text = np.frombuffer("".join(self.counts).encode("ascii"), np.uint8)
        np.savez_compressed(stream, lengths=lengths, text=text, **self.arrays())
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, parts: Iterable[bytes]) -> Detected:
        """Join the results of ``to_bytes`` on several ranks, in the order of the images."""
        joined, counts = cls(), []
        for data in parts:
            with np.load(io.BytesIO(data)) as content:
                for name in cls.FIELDS:
                    joined.parts[name].append(content[name])
                text, ends = content["text"].tobytes().decode("ascii"), np.cumsum(content["lengths"]).tolist()
                counts += [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        arrays = joined.arrays()
        order = np.argsort(arrays["images"], kind="stable")
        joined.parts = {name: [values[order]] for name, values in arrays.items()}
        joined.counts = [counts[i] for i in order] if counts else []
        return joined


class CocoEvaluator:
    """Box AP and, with masks, mask AP of a detector.

    Every rank collects the detections of its images. ``compute`` gathers them, rank 0 runs pycocotools, and all ranks
    get its numbers.

    Args:
        model: The detector.
        split: The evaluation images.
        mask_threshold: Least probability of a mask's pixels.
        masks: Whether the detector has masks.
    """

    def __init__(self, model: nn.Cell, split: CocoSplit, mask_threshold: float = 0.5, masks: bool = True):
        self.network, self.split, self.mask_threshold = CocoNetwork(model), split, mask_threshold
        self.kinds = {kind: word for kind, word in KINDS.items() if masks or kind == "bbox"}
        self.metrics = METRICS if masks else BOX_METRICS
        self.truth: COCO | None = None
        self.results: list[dict[str, Any]] = []
        self.categories: list[int] = []  # in pycocotools' order
        self.accumulated: dict[str, Accumulated] = {}  # of each kind
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.detected = Detected()

    def update(self, batch: Batch, outputs: tuple[Tensor, ...]) -> None:
        """Add the detections of a batch."""
        *_, ori_shapes, index, valid = batch
        arrays = [output.asnumpy() for output in outputs]
        for i in np.flatnonzero(valid):
            found = to_detections([array[i] for array in arrays], ori_shapes[i], self.mask_threshold)
            self.detected.add(int(index[i]), *found)

    def compute(self, ranks: Ranks) -> Metrics:
        """Return the metrics over all images of all ranks."""
        parts = ranks.gather_bytes(self.detected.to_bytes())
        values = ranks.run_on_rank0(lambda: self._evaluate(Detected.from_bytes(parts)))
        if self.split.truth is None:
            reason = f"{self.split.annotation_file} has no annotations"
        else:
            reason = "there are no objects to find, or crowds alone"
        return Metrics(self.metrics, values, len(self.split), undefined=reason)

    def _evaluate(self, detected: Detected) -> dict[str, float | None]:
        """Return 12 numbers a kind, None where undefined; keep results for ``write_results`` and ``per_class``."""
        self.results = coco_results(detected, self.split)
        values: dict[str, float | None] = dict.fromkeys(metric_key(kind, n) for kind in self.kinds for n in NUMBERS)
        if self.split.truth is None:
            return values
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            self.truth = self.truth or coco_of(self.split.truth_content())
            found = load_results(self.truth, self.results)
            for kind in self.kinds:
                # The evaluation holds a record for every image, class and size; only its sums stay in memory.
                evaluation = COCOeval(self.truth, found, kind)
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
                self.accumulated[kind] = Accumulated(evaluation.eval["precision"], evaluation.eval["recall"])
                self.categories = evaluation.params.catIds
                names = [metric_key(kind, number) for number in NUMBERS]
                # pycocotools writes -1 for the mean over no objects.
                stats = (float(value) if value > -1 else None for value in evaluation.stats)
                values |= dict(zip(names, stats, strict=True))
        return values

    def write_results(self, path: Path) -> None:
        """Write the detections as COCO's results, on rank 0 after ``compute``."""
        with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write("[" + ",\n".join(map(json.dumps, self.results)) + "]")

    def per_class(self) -> Sequence[str]:
        """Return a line with the AP of each class, on rank 0 after ``compute``."""
        rows = []
        for category, name in zip(self.split.category_ids, self.split.class_names, strict=True):
            place, figures = self.categories.index(category), []
            for kind, word in self.kinds.items():
                ap = self.accumulated[kind].ap(place)
                figures += [f"{word} AP {ap:.3f}"] if ap is not None else []
            rows.append(f"{name}: {', '.join(figures) or 'no objects, the AP is undefined'}")
        return rows


def coco_results(detected: Detected, split: CocoSplit) -> list[dict[str, Any]]:
    """Return detections as COCO's list of results."""
    arrays = detected.arrays()
    boxes = arrays["boxes"].astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    sizes, images = split.sizes.tolist(), arrays["images"].tolist()
    ids, categories = split.image_ids.tolist(), split.category_ids
    columns = (images, arrays["labels"].tolist(), boxes.tolist(), arrays["scores"].tolist())
    rows: list[dict[str, Any]] = [
        {"image_id": ids[image], "category_id": categories[label], "bbox": box, "score": score}
        for image, label, box, score in zip(*columns, strict=True)
    ]
    for row, image, counts in zip(rows, images, detected.counts, strict=bool(detected.counts)):
        row[MASK_KEY] = {"size": sizes[image], "counts": counts}
    return rows


def coco_of(content: dict[str, Any]) -> COCO:
    """Return pycocotools' index of an annotation file's content."""
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco


def load_results(truth: COCO, results: list[dict[str, Any]]) -> COCO:
    """Return the results as ``COCO.loadRes`` does, which refuses an empty list and changes the results."""
    if results:
        return truth.loadRes([dict(row) for row in results])
    return coco_of({**truth.dataset, "annotations": []})
