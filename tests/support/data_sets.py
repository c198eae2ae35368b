"""Small data sets without real images, for tests of names and labels."""

from pathlib import Path

from msg_ms.config import load_config
from msg_ms.data import load_folders, scan_list


def write(root, *files):
    for file in files:
        path = Path(root, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")


def data_set(root, classes, per_class=2):
    for part in ("train", "val"):
        write(root, *(f"{part}/{name}/{i}.png" for name in classes for i in range(per_class)))


def flat_set(root, classes):
    """Write train/ in folders and a flat val/; return the files and names of val/."""
    write(root, *(f"train/{name}/0.png" for name in classes), *(f"val/{i}.png" for i in range(len(classes))))
    return [(f"{i}.png", name) for i, name in enumerate(classes)]


def load(root, num_classes, training=False, **keys):
    keys = {f"DATA__{key}": str(value) for key, value in keys.items()}
    return load_folders(load_config(None, DATA__DATA_PATH=str(root), **keys).data, num_classes, training)


def listed(root, lines, classes, text=None):
    (root / "val.txt").write_text(text or "\n".join(f"{file} {word}" for file, word in lines), encoding="utf-8")
    return scan_list(root / "val", root / "val.txt", classes, len(classes or ()))
