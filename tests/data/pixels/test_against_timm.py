"""20,000 draws of each random quantity against timm's code; needs torch, torchvision and timm."""

import random
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from scipy import stats

from msg_ms.config import load_config
from msg_ms.data.pixels.mixup import build_mixup
from msg_ms.data.pixels.rand_augment import parse_rand_augment
from msg_ms.data.pixels.transforms import crop_box, erased_boxes

for package in ("torch", "torchvision", "timm"):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)
sys.path.insert(0, str(ROOT / "benchmarks"))

import torch  # noqa: E402
from timm_peer import mixup, train_transform  # noqa: E402

DRAWS = 20_000
CONFIG = "rand-m9-mstd0.5-inc1"


@pytest.fixture(autouse=True)
def seeds():
    random.seed(11)
    np.random.seed(12)
    torch.manual_seed(13)


def part(kind):
    return next(t for t in train_transform().transforms if type(t).__name__ == kind)


def same_distribution(ours, theirs):
    assert stats.ks_2samp(ours, theirs).pvalue > 0.001


def same_counts(ours, theirs):
    assert stats.chi2_contingency([ours, theirs]).pvalue > 0.001


def test_operations_probabilities_and_magnitudes():
    timms = part("RandAugment")
    drawn: list[tuple[str, float]] = []
    for op in timms.ops:
        op.level_fn = lambda level, _: (level,)
        op.aug_fn = lambda image, level, name=op.name, **_: drawn.append((name, level)) or image
    for _ in range(DRAWS):
        timms(None)
    own = parse_rand_augment(CONFIG)
    rng = np.random.default_rng(0)
    mine = [(name, level) for _ in range(DRAWS) for name, _, level in own.draw(rng)]
    names = [op.name for op in timms.ops]
    assert [name for name, _ in own.operations] == names
    same_counts(*([sum(n == name for n, _ in rows) for name in names] for rows in (mine, drawn)))
    same_counts(*([len(rows), 2 * DRAWS - len(rows)] for rows in (mine, drawn)))
    same_distribution(*([level for _, level in rows] for rows in (mine, drawn)))


def test_crop_area_and_ratio():
    image = Image.new("RGB", (500, 375))
    timms, rng = part("RandomResizedCropAndInterpolation"), np.random.default_rng(1)
    theirs = [timms.get_params(image, timms.scale, timms.ratio) for _ in range(DRAWS)]
    mine = [crop_box(375, 500, (0.08, 1.0), (3 / 4, 4 / 3), rng) for _ in range(DRAWS)]
    for quantity in (
        lambda top, left, h, w: h * w,
        lambda top, left, h, w: w / h,
        lambda top, left, h, w: top,
        lambda top, left, h, w: left,
    ):
        same_distribution([quantity(*box) for box in mine], [quantity(*box) for box in theirs])


def test_erased_area():
    timms, rng = part("RandomErasing"), np.random.default_rng(2)
    timms.mode, timms.per_pixel = "const", False
    theirs, mine = [], []
    for _ in range(DRAWS):
        theirs.append(int((timms(torch.ones(1, 56, 56)) == 0).sum()))
        boxes = erased_boxes(56, 56, 1, rng) if rng.random() < 0.25 else []
        mine.append(sum(height * width for _, _, height, width in boxes))
    same_counts(*([sum(a > 0 for a in rows), sum(a == 0 for a in rows)] for rows in (mine, theirs)))
    same_distribution(*([a for a in rows if a] for rows in (mine, theirs)))


def test_mixing_weight_and_cutmix_area():
    timms, rng = mixup(), np.random.default_rng(3)
    own = build_mixup(load_config(None).aug)
    theirs: dict[bool, list[float]] = {True: [], False: []}
    mine: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(DRAWS):
        x = torch.zeros(2, 1, 32, 32)
        x[1] = 1
        weight = timms._mix_batch(x)
        cut = set(x[0].unique().tolist()) <= {0.0, 1.0}
        theirs[cut].append(1 - weight if cut else weight)
        weight, box = own.draw(32, 32, rng)
        mine[box is not None].append(1 - weight if box is not None else weight)
    same_counts(*([len(rows[True]), len(rows[False])] for rows in (mine, theirs)))
    same_distribution(mine[True], theirs[True])
    same_distribution(mine[False], theirs[False])
