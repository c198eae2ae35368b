"""The model behind the page: the predictions of msg_ms.load, for any threshold, on images of any size."""

import cv2
import numpy as np
import pytest
from support import small_detector
from support.stored_model import write_model

import msg_ms
from msg_ms import UserError
from msg_ms.serve.uploads import Limits
from msg_ms.serve.worker import ModelWorker

pytestmark = pytest.mark.slow  # the detector's graph is compiled twice


def test_a_threshold_changes_without_the_model_and_large_images_are_shown_smaller(tmp_path):
    write_model(tmp_path / "best.ckpt", small_detector.CONFIG, '["square", "disc"]')
    worker = ModelWorker(tmp_path / "best.ckpt", Limits())
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    loaded = msg_ms.load(tmp_path / "best.ckpt")
    for factor in (1, 25):
        image = np.repeat(np.repeat(pixels, factor, 0), factor, 1)
        (tmp_path / "x.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
        (one,) = loaded.predict(tmp_path / "x.png", score_thr=0.0)
        low, high = sorted(one.scores)[0], sorted(one.scores)[-1]
        answer = worker.answer(tmp_path / "x.png", float(low))
        for threshold, found in ((low, answer), (high, worker.redraw(answer.key, float(high)))):
            chosen = one.scores >= threshold
            assert [row[0] for row in found.objects] == [n for n, c in zip(one.classes, chosen, strict=True) if c]
            boxes = np.array([row[2:] for row in found.objects])
            assert np.abs(boxes - one.boxes[chosen]).max() <= 0.51
        assert len(answer.objects) > 1 and max(answer.drawing.shape) == (480 if factor == 1 else 1600)
    with pytest.raises(UserError, match="not kept any more; drop it again"):
        worker.redraw("unknown", 0.5)
    worker.close()
