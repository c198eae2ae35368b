"""Anchors and their flags equal mmdetection's bit for bit."""

import numpy as np
from support.detection import TABLE, model_settings

from msg_ms.boxes.anchors import base_anchors, grid_anchors, inside_flags, level_shapes, valid_flags


def generator() -> dict:
    settings = model_settings()["rpn_head"]["anchor_generator"]
    return dict(strides=settings["strides"], ratios=settings["ratios"], scale=settings["scales"][0])


def all_anchors(padded_shape) -> tuple[list, list[np.ndarray]]:
    shapes = level_shapes(*padded_shape, generator()["strides"])
    return shapes, grid_anchors(shapes, **generator())


def usable(padded_shape, meta: dict) -> tuple[np.ndarray, np.ndarray]:
    shapes, anchors = all_anchors(padded_shape)
    valid = valid_flags(shapes, meta["pad_shape"][:2], generator()["strides"], generator()["ratios"])
    return valid, valid & inside_flags(np.concatenate(anchors), meta["img_shape"][:2])


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
        valid, inside = usable(pieces.description["padded_shape"], meta)
        TABLE.check(f"anchors.valid.img{i}", valid, pieces[f"anchors.valid.img{i}"], "exact")
        TABLE.check(f"anchors.inside.img{i}", inside, pieces[f"anchors.inside.img{i}"], "exact")


def test_flags_of_the_detector(detector):
    for i, meta in enumerate(detector.description["img_metas"]):
        _, inside = usable(detector["images"].shape[2:], meta)
        TABLE.check("detector rpn.inside", inside, detector[f"train_bn/rpn.img{i}.inside"], "exact")


def test_a_negative_border_includes_every_anchor():
    assert inside_flags(np.array([[-50, -50, 500, 500]], np.float32), (20, 20), border=-1).all()
    assert inside_flags(np.array([[-4, 0, 15, 19]], np.float32), (20, 20), border=5).all()
    assert not inside_flags(np.array([[0, 0, 20, 19]], np.float32), (20, 20)).any()
