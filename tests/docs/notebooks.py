"""Execute the notebooks of docs/notebooks: python tests/docs/notebooks.py [NAME ...] stores their outputs.

Needs pip install -e '.[notebooks]'. The working directory is a new folder beside links to the repository's ``configs``
and ``tools``.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
LONGEST_CELL = 1800  # seconds


def execute(name: str, folder: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of its cells, executed below ``folder``."""
    place = folder / "docs" / "notebooks"
    place.mkdir(parents=True, exist_ok=True)
    for link in ("configs", "tools"):
        if not (folder / link).exists():
            (folder / link).symlink_to(ROOT / link)
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    resources = {"metadata": {"path": str(place)}}
    options = dict(timeout=LONGEST_CELL, kernel_name="python3", coalesce_streams=True)
    NotebookClient(notebook, resources=resources, **options).execute()
    return cleaned(notebook)


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook without times, versions, and outputs that a page does not show."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            # A progress bar is gone when its loop has ended, but its place in the outputs would stay.
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                output.get("data", {}).pop("image/jpeg", None)  # Pillow's second form of the same picture
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
            nbformat.write(execute(name, Path(temporary)), FOLDER / f"{name}.ipynb")
            print(f"stored docs/notebooks/{name}.ipynb")
