"""Anchors and their flags equal mmdetection's bit for bit."""

import numpy as np
from support.detection import TABLE, model_settings

from msg_ms.boxes.anchors import base_anchors, grid_anchors, inside_flags, level_shapes


def generator() -> dict:
    settings = model_settings()["rpn_head"]["anchor_generator"]
    return dict(strides=settings["strides"], ratios=settings["ratios"], scale=settings["scales"][0])


def all_anchors(padded_shape) -> tuple[list, list[np.ndarray]]:
    shapes = level_shapes(*padded_shape, generator()["strides"])
    return shapes, grid_anchors(shapes, **generator())


def inside_image(padded_shape, meta: dict) -> np.ndarray:
    return inside_flags(np.concatenate(all_anchors(padded_shape)[1]), meta["img_shape"][:2])


def test_anchors(pieces):
    _, levels = all_anchors(pieces.description["padded_shape"])
    for (number,), key in pieces.match(r"anchors\.level(\d+)").items():
        level = int(number)
        TABLE.check(key, levels[level], pieces[key], "exact")
        stride = generator()["strides"][level]
        base = base_anchors(stride, generator()["ratios"], generator()["scale"])
        TABLE.check(f"anchors.base{level}", base, pieces[f"anchors.base{level}"], "exact")
        assert levels[level].dtype == np.float32


def test_flags(pieces):
    for i, meta in enumerate(pieces.description["img_metas"]):
        inside = inside_image(pieces.description["padded_shape"], meta)
        TABLE.check(f"anchors.inside.img{i}", inside, pieces[f"anchors.inside.img{i}"], "exact")


def test_flags_of_the_detector(detector):
    for i, meta in enumerate(detector.description["img_metas"]):
        inside = inside_image(detector["images"].shape[2:], meta)
        TABLE.check("detector rpn.inside", inside, detector[f"train_bn/rpn.img{i}.inside"], "exact")
