"""A detector that is as small as its parts allow, on scenes of 64 pixels."""

from pathlib import Path

from .coco import small_coco, write_split

CONFIG = """
TASK: detection
MODEL:
  NAME: small_detector
  NUM_CLASSES: 2
  DROP_PATH_RATE: 0.2
  MSG: {EMBED_DIM: 8, DEPTHS: [1, 1, 1, 1], NUM_HEADS: [1, 1, 2, 2], WINDOW_SIZE: 4, SHUF_SIZE: [2, 2, 1, 1]}
  RCNN: {FPN_CHANNELS: 8, FC_CHANNELS: 16, TRAIN_PROPOSALS: 24, TEST_PROPOSALS: 12, ROI_SAMPLES: 16, MAX_PER_IMG: 6,
    SCORE_THR: 0.02}
DATA: {BATCH_SIZE: 2, NUM_WORKERS: 1}
DETECTION: {SHORT_SIDES: [48, 64], LONG_SIDE: 64, CROP: 0.0, TEST_SHORT_SIDE: 64, TEST_LONG_SIDE: 64,
  CANVASES: [[64, 64]], MAX_GT: 4}
TRAIN: {EPOCHS: 2, WARMUP_EPOCHS: 0, CLIP_GRAD: 0.0, BASE_BATCH_SIZE: 2, BASE_LR: 1e-3}
"""


def write_data(folder: Path, train: int = 6, val: int = 5) -> Path:
    """Write a COCO data set with images of sides 48 to 64 and return its folder."""
    for name, count, seed in (("train2017", train, 0), ("val2017", val, 1)):
        write_split(folder, name, *small_coco([(64 - 4 * (i % 3), 48 + 4 * (i % 4)) for i in range(count)], seed=seed))
    return folder
