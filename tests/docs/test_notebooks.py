"""The notebooks of docs/notebooks: their stored outputs, the same metrics again, and a run inside a kernel."""

import base64
import json
import re
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import ROOT
from support.small_run import CONFIG, write_images

FOLDER = ROOT / "docs" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
LARGEST = 150_000  # bytes of a file
METRICS = re.compile(r"(?:top-1|top-5|loss|\w*mAP\w*|AP\w*) \d[\d.]*%?")
LINE = re.compile(r".* on \d+ images")
needs_kernel = pytest.mark.skipif(
    not (find_spec("nbclient") and find_spec("ipykernel")), reason="needs pip install -e '.[notebooks]'"
)


def code_cells(content):
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def text_of(content):
    """Return all that the cells print or display as text."""
    parts = []
    for output in (output for cell in code_cells(content) for output in cell["outputs"]):
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        parts.append(text if isinstance(text, str) else "".join(text))
    return "\n".join(parts)


def metrics_of(content):
    """Return the metrics of the lines on an evaluation."""
    return [METRICS.findall(line) for line in LINE.findall(text_of(content))]


def read(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stored(name):
    content, text = read(name), text_of(read(name))
    cells = code_cells(content)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    pictures = [base64.b64decode(o["data"]["image/png"]) for o in outputs if "image/png" in o.get("data", {})]
    assert pictures and all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < LARGEST
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
    assert metrics_of(content) and str(ROOT) not in text and "/tmp" not in text
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert f"notebooks/{name}.ipynb" in site


@needs_kernel
@pytest.mark.slow
def test_notebooks_have_the_same_metrics_again(tmp_path):
    from notebooks import execute

    for name in NAMES:
        assert metrics_of(execute(name, tmp_path)) == metrics_of(read(name)), name


class Kernel:
    """A kernel of a notebook in a folder."""

    def __init__(self, folder: Path):
        from jupyter_client.manager import start_new_kernel

        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(folder))

    def run(self, code, interrupt_at=None, timeout=600):
        """Run a cell, and press the stop button when its output has a text.

        Returns:
            The reply's status, the text of its outputs, and the types of their messages.
        """
        request, text, kinds, end = self.client.execute(code), "", set(), time.monotonic() + timeout
        while time.monotonic() < end:
            message = self.client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            kinds.add(kind)
            text += content.get("text", "") + "\n".join(content.get("traceback", []))
            if interrupt_at is not None and re.search(interrupt_at, text):
                self.manager.interrupt_kernel()
                interrupt_at = None
            if kind == "status" and content["execution_state"] == "idle":
                break
        reply: dict = {"parent_header": {}}
        while reply["parent_header"].get("msg_id") != request:
            reply = self.client.get_shell_msg(timeout=60)
        return reply["content"]["status"], text, kinds

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("bar", ["widget", "text"])
def test_the_stop_button_saves_and_returns_the_run(bar, tmp_path):
    if bar == "widget" and find_spec("ipywidgets") is None:
        pytest.skip("ipywidgets is not installed")
    write_images(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    kernel = Kernel(tmp_path)
    try:
        if bar == "text":
            kernel.run("import sys; sys.modules['ipywidgets'] = None")
        train = "run = msg_ms.train({'BASE': 'small.yaml', 'TRAIN.EPOCHS': 2000}, data_path='data')\n"
        show = "print(run.checkpoint.name, len(run.history['epoch']))"
        status, text, kinds = kernel.run(f"import msg_ms\n{train}{show}", interrupt_at=r"epoch 3/2000: top-1")
        name, epochs = re.search(r"(ckpt_\d+\.ckpt) (\d+)\s*$", text).groups()
        assert status == "ok" and 3 <= int(epochs) < 2000
        assert (tmp_path / "output" / "small" / "default" / name).exists()
        assert ("comm_open" in kinds) == (bar == "widget") and ("%|" in text) == (bar == "text")
        # The same call continues, and the stop button has its usual effect again outside of training.
        status, text, _ = kernel.run(f"{train}{show}", interrupt_at=rf"epoch {int(epochs) + 2}/2000: top-1")
        assert status == "ok" and int(re.search(r"ckpt_\d+\.ckpt (\d+)\s*$", text)[1]) >= int(epochs) + 2
        status, text, _ = kernel.run("print('waiting', flush=True)\nwhile True: pass", interrupt_at="waiting")
        assert status == "error" and "KeyboardInterrupt" in text
    finally:
        kernel.close()
