"""Ranks of one machine list a folder once: run by msrun, prints what each rank saw as JSON."""

import json
import os
import sys
from pathlib import Path

from msg_ms.config import load_config
from msg_ms.data.images import folder
from msg_ms.engine.device import setup_device
from msg_ms.errors import UserError
from msg_ms.tasks.classification import ClassificationTask

_, ranks = setup_device("CPU", 0)
listed, list_images = [], folder._list_images
folder._list_images = lambda path, found: listed.append(path) or list_images(path, found)
seen = {}
for data in sys.argv[1:]:
    listed.clear()
    task = ClassificationTask(load_config(None, DATA__DATA_PATH=data, MODEL__NUM_CLASSES=3))
    try:
        task.prepare(ranks)
        train, val = task.folders
        seen[data] = [list(train.files), train.labels, list(val.files), train.classes, val.warnings]
    except UserError as error:
        seen[data] = str(error)
    seen[f"{data} listed"] = len(listed)
seen["left"] = [name for name in os.listdir("/dev/shm") if name.startswith("msg_ms-")]
Path(f"rank{ranks.rank}.json").write_text(json.dumps(seen), encoding="utf-8")
