"""Predictions for every image, results by class and the report of a classifier, against scikit-learn and NumPy."""

import csv
import json
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from mindspore import Tensor, nn
from sklearn import metrics as sk

from msg_ms import UserError
from msg_ms.data import scan_folder
from msg_ms.data.classification import ClassificationEvalBatch
from msg_ms.data.images.class_names import ClassName, named_classes
from msg_ms.data.pipeline import pad_batch
from msg_ms.engine.ranks import Ranks
from msg_ms.report import write_report
from msg_ms.tasks.classification_evaluator import ClassificationEvaluator, DetailedEvaluator
from msg_ms.tasks.classification_report import classification_report
from msg_ms.tasks.classification_results import check_predictions

NAMES = ("=1+2", "<b>bold<b>", "a,b", "cat", "n01440764", "two\nlines", "\u6570\u5b57")  # in the order of a folder
IMAGES = 5  # of each class


class Logits(nn.Cell):
    """Returns its input as the logits."""

    def construct(self, x):
        return x


class Merging(Ranks):
    """Rank 0 of several, with the data of the others at hand."""

    evaluators = ()

    def gather_bytes(self, data):
        return [data, *(_own_bytes(evaluator) for evaluator in self.evaluators[1:])]

    def sum(self, values):
        return np.sum([[*evaluator.sums, evaluator.count] for evaluator in self.evaluators], 0)


def _own_bytes(evaluator):
    sent = []
    alone = Ranks()
    object.__setattr__(alone, "gather_bytes", lambda data: sent.append(data) or [data])
    evaluator.compute(alone)
    return sent[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("val")
    draws = np.random.RandomState(0)
    for name in NAMES:
        (root / name).mkdir()
        for i in range(IMAGES):
            cv2.imwrite(str(root / name / f"{i}.png"), draws.randint(0, 255, (9, 12, 3), np.uint8))
    listed = scan_folder(root)
    assert sorted(listed.classes) == sorted(NAMES)
    return listed


@pytest.fixture(scope="module")
def logits():
    draws = np.random.RandomState(1)
    values = draws.randn(len(NAMES) * IMAGES, len(NAMES)).astype(np.float32)
    return values + 2 * np.repeat(np.eye(len(NAMES), dtype=np.float32), IMAGES, 0)


def batches(folder, logits, shard=0, shards=1, size=8):
    """Yield padded batches of a shard with the network's outputs as images."""
    own = np.arange(shard, len(folder), shards)
    for begin in range(0, len(own), size):
        index = own[begin : begin + size]
        labels = np.array([folder.labels[i] for i in index], np.int32)
        yield ClassificationEvalBatch(*pad_batch((logits[index], labels, index.astype(np.int32)), size))


def evaluate(kind, folder, logits, *others, shards=1, size=8):
    evaluators = [kind(Logits(), *others) for _ in range(shards)]
    for shard, evaluator in enumerate(evaluators):
        evaluator.network.set_train(False)
        for batch in batches(folder, logits, shard, shards, size):
            evaluator.update(batch, evaluator.network(*map(Tensor, batch)))
    ranks = Merging(0, shards)
    object.__setattr__(ranks, "evaluators", evaluators)
    return evaluators[0], evaluators[0].compute(ranks)


@pytest.fixture(scope="module")
def evaluated(folder, logits):
    return evaluate(DetailedEvaluator, folder, logits, folder, named_classes(folder.classes))


def test_the_metrics_have_the_bits_of_plain_evaluation(folder, logits, evaluated):
    plain = evaluate(ClassificationEvaluator, folder, logits, len(NAMES))[1]
    assert evaluated[1] == plain


def test_every_image_has_its_probabilities(folder, logits, evaluated):
    predicted = evaluated[0].predicted
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    order = np.argsort(-logits, 1)[:, :5]
    assert predicted.index.tolist() == list(range(len(folder))) and predicted.labels.tolist() == list(folder.labels)
    np.testing.assert_array_equal(predicted.best, order)
    np.testing.assert_allclose(predicted.probabilities, np.take_along_axis(probabilities, order, 1), rtol=1e-5)
    own = probabilities[np.arange(len(folder)), folder.labels]
    np.testing.assert_allclose(predicted.losses, -np.log(own), rtol=1e-4)


def test_any_number_of_ranks_has_the_same_predictions(folder, logits, evaluated):
    names = named_classes(folder.classes)
    several, metrics = evaluate(DetailedEvaluator, folder, logits, folder, names, shards=3, size=4)
    assert metrics.count == len(folder) and metrics.values["top1"] == evaluated[1].values["top1"]
    for name, values in vars(evaluated[0].predicted).items():
        np.testing.assert_array_equal(getattr(several.predicted, name), values)


def test_the_lines_by_class_are_accuracies(folder, evaluated):
    predicted, names = evaluated[0].predicted, named_classes(folder.classes)
    lines = evaluated[0].per_class()
    for label, line in enumerate(lines):
        own = predicted.labels == label
        top1 = 100 * sk.accuracy_score(predicted.labels[own], predicted.best[own, 0])
        assert line.startswith(f"{names[label].short}: top-1 {top1:.2f}%, top-5 ") and line.endswith("on 5 images")
    assert "tench: top-1" in "\n".join(lines)


def test_the_results_are_json_or_csv(folder, evaluated, tmp_path):
    predicted = evaluated[0].predicted
    for name in ("r.json", "r.csv"):
        check_predictions(tmp_path / name)
        evaluated[0].write_results(tmp_path / name)
        check_predictions(tmp_path / name)  # its own file may be replaced
    records = json.loads((tmp_path / "r.json").read_text("utf-8"))
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(records) == len(rows) == len(folder)
    for i, (record, row) in enumerate(zip(records, rows, strict=True)):
        assert record["file"] == folder.files.name(i) and record["class"] == folder.classes[folder.labels[i]]
        assert [guess["label"] for guess in record["predictions"]] == predicted.best[i].tolist()
        assert [float(row[f"top{k}_probability"]) for k in range(1, 6)] == predicted.probabilities[i].tolist()
        assert row["file"].removeprefix("'") == record["file"] and int(row["label"]) == record["label"]
        assert row["top1_class"].removeprefix("'") == record["predictions"][0]["class"]
        assert not row["file"].startswith("=")


@pytest.mark.parametrize("name", ["other.csv", "other.json", "wrong.txt"])
def test_a_file_of_another_program_stays(name, tmp_path):
    (tmp_path / name).write_text('[{"file": "a"}]' if "json" in name else "file,label\n", encoding="utf-8")
    message = "must end in .json or .csv" if "txt" in name else "exists and holds no predictions of this program"
    with pytest.raises(UserError, match=rf"--results .*{name}: {message}"):
        check_predictions(tmp_path / name)


class Pictures(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.kinds = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.kinds.append(dict(attributes)["src"][:20])


def test_the_report_has_scikit_learns_numbers_and_the_worst_images(folder, evaluated, tmp_path):
    evaluator, metrics = evaluated
    predicted = evaluator.predicted
    write_report(tmp_path / "report", classification_report(evaluator, metrics), [("model", "small")])
    content = json.loads((tmp_path / "report" / "metrics.json").read_text("utf-8"))
    assert content["metrics"]["top1"] == metrics.values["top1"]
    balanced = sk.balanced_accuracy_score(predicted.labels, predicted.best[:, 0])
    assert content["metrics"]["balanced"] == pytest.approx(100 * balanced)
    precision, recall, f1, count = sk.precision_recall_fscore_support(
        predicted.labels, predicted.best[:, 0], zero_division=np.nan
    )
    rows = {row["label"]: row for row in content["per_class"]}
    for label, row in rows.items():
        assert [row["precision"], row["f1"], row["top1"] / 100] == pytest.approx(
            [precision[label], f1[label], recall[label]]
        )
        assert row["images"] == count[label] and row["class"] == folder.classes[label]
        assert row["loss"] == pytest.approx(predicted.losses[predicted.labels == label].mean())
    assert [row["top1"] for row in content["per_class"]] == sorted(row["top1"] for row in rows.values())
    matrix = sk.confusion_matrix(predicted.labels, predicted.best[:, 0])
    with (tmp_path / "report" / "confusion.csv").open(encoding="utf-8", newline="") as file:
        cells = {(int(r["true_label"]), int(r["predicted_label"])): int(r["count"]) for r in csv.DictReader(file)}
    assert cells == {(i, j): matrix[i, j] for i, j in np.argwhere(matrix).tolist()}
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    wrong = int((predicted.best[:, 0] != predicted.labels).sum())
    assert 0 < wrong < 40 and f"{wrong} of {len(folder)} images have a wrong prediction" in page
    assert Pictures(page).kinds.count("data:image/jpeg;base") == wrong
    assert "<b>bold" not in page and "&lt;b&gt;bold" in page and "\u6570\u5b57" in page


def test_many_classes_and_images_stay_readable_and_small(tmp_path):
    draws, classes, images = np.random.RandomState(3), 1000, 10_000
    labels = np.arange(images, dtype=np.int32) % classes
    best = np.argsort(draws.rand(images, 12), 1)[:, :5].astype(np.int32) * 80
    best[draws.rand(images) < 0.8, 0] = -1
    best[:, 0] = np.where(best[:, 0] < 0, labels, best[:, 0])
    names = [ClassName(f"c{i}", f"class {i}") for i in range(classes)]

    class Missing:
        files = type("Files", (), {"name": staticmethod(lambda index: f"{index}.png")})

        @staticmethod
        def decode(index, bad_files):
            return None

    evaluator = DetailedEvaluator(nn.Cell(), Missing, names)
    probabilities = np.sort(draws.rand(images, 5).astype(np.float32), 1)[:, ::-1] / 2
    values = np.arange(images, dtype=np.int32), labels, draws.rand(images).astype(np.float32), best, probabilities
    evaluator.parts.append(type(evaluator.parts[0])(*values))
    evaluator.sums, evaluator.count = np.zeros(3), images
    metrics = evaluator.compute(Ranks())
    write_report(tmp_path / "report", classification_report(evaluator, metrics), [])
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "report").iterdir()}
    assert sizes["report.html"] < 1_500_000 and sum(sizes.values()) < 4_000_000
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "These are the 30 classes of 1000 with the most errors" in page and "can&#39;t be read any more" in page
