"""Comparison of finished runs."""

from pathlib import Path

from msg_ms.checkpoint import read_checkpoint


def result(folder: Path) -> tuple[dict[str, dict[str, bytes]], str]:
    """Return the bits of a run's last and best checkpoint, and its metrics."""
    newest = max(folder.glob("ckpt_*.ckpt"))
    files = {name: read_checkpoint(folder / name)[0] for name in (newest.name, "best.ckpt")}
    bits = {name: {n: v.tobytes() for n, v in arrays.items()} for name, arrays in files.items()}
    return bits, (folder / "metrics.jsonl").read_text()
