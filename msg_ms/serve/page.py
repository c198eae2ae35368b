"""The page: drop an image, and see classes or objects; everything comes from this machine."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..engine.predictor import SCORE_THR, TOP_K
from ..errors import UserError
from .body_limit import Guard
from .uploads import MEGA
from .worker import Answer, ModelWorker

EXTRA = "gradio, which serves the page, is missing: pip install 'msg-ms[serve]'"
_WAITING = 200  # images in the queue
_HEIGHT = 420  # pixels of the image on the page
_REST = MEGA  # bytes of a request beside the file
# Seconds between looks at the files of the page, and their age when they are deleted: longer than the queue. Equal
# uploads of several people are one file, so an answer must not delete its own.
_CLEAN = (300, 3600)
# No telemetry, no question for newer versions, no model hub.
_OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def serve(worker: ModelWorker, host: str, port: int, threshold: float = SCORE_THR) -> None:
    """Serve the page until the process is interrupted.

    Args:
        worker: The model.
        host: Address to listen on; 127.0.0.1 is for this machine only.
        port: Port to listen on; 0 for any free one.
        threshold: Least score of an object at first.

    Raises:
        UserError: The port is in use, or gradio is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="msg_ms-page-") as folder:
        os.environ |= {**_OFFLINE, "GRADIO_TEMP_DIR": folder}
        app = build_app(worker, threshold)
        import uvicorn

        config = uvicorn.Config(app, host, port, log_level="warning", timeout_graceful_shutdown=2)
        try:
            socket = config.bind_socket()
        except SystemExit:  # uvicorn has logged the reason
            raise UserError(f"can't listen on {host}, port {port}: choose another one with --port") from None
        # Uvicorn raises the signal again at its end; as an exception it removes the folder.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        print(f"http://{host}:{socket.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run([socket])


def build_app(worker: ModelWorker, threshold: float = SCORE_THR) -> Guard:
    """Return the page as an ASGI application.

    Args:
        worker: The model.
        threshold: Least score of an object at first.

    Raises:
        UserError: Gradio is not installed.
    """
    os.environ |= _OFFLINE  # gradio reads them when it is imported
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError:
        raise UserError(EXTRA) from None
    blocks = _blocks(gr, worker, threshold)
    blocks.queue(max_size=_WAITING, default_concurrency_limit=1, api_open=False)
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        blocks,
        path="",
        max_file_size=worker.limits.bytes,
        ssr_mode=False,
        footer_links=[],
        run_history=False,
        theme=gr.themes.Default(font=["sans-serif"], font_mono=["monospace"]),  # no request to Google
    )
    return Guard(app, worker.limits.bytes + _REST)


def _blocks(gr: Any, worker: ModelWorker, threshold: float) -> Any:
    """Return the components of the page and their events."""
    model = worker.loaded.config.model
    limits = worker.limits
    with gr.Blocks(title=model.name, analytics_enabled=False, delete_cache=_CLEAN) as blocks:
        gr.Markdown(
            f"# {model.name}\n{model.num_classes} classes; up to {limits.megabytes} MB and "
            f"{limits.megapixels} million pixels"
        )
        key = gr.State("")
        with gr.Row():
            with gr.Column(scale=1):
                upload = gr.File(label="Drop an image here", type="filepath", elem_id="upload", height=160)
                slider = gr.Slider(
                    0, 1, threshold, step=0.01, label="Least score", elem_id="threshold", visible=worker.detects
                )
                message = gr.Markdown(elem_id="message")
            with gr.Column(scale=2):
                common = {"interactive": False, "format": "png", "buttons": []}
                picture = gr.Image(label="Image", elem_id="picture", height=_HEIGHT, **common)
                table = gr.Markdown(elem_id="objects", visible=worker.detects)
                label = gr.Label(label="Classes", num_top_classes=TOP_K, elem_id="classes", visible=not worker.detects)
        attention = gr.Image(
            label="Attention of the MSG tokens", elem_id="attention", visible=not worker.detects, **common
        )
        outputs = [upload, key, picture, table, label, attention, message]
        events = {"outputs": outputs, "concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}

        def answer(path: str | None, least: float) -> tuple:
            if path is None:
                return shown(Answer())
            try:
                return shown(worker.answer(Path(path), least))
            except UserError as error:
                return shown(Answer(), str(error))

        def redraw(name: str, least: float) -> tuple:
            try:
                return shown(worker.redraw(name, least) if name else Answer())
            except UserError as error:
                return shown(Answer(), str(error))

        upload.upload(answer, [upload, slider], show_progress="minimal", **events)
        slider.change(redraw, [key, slider], show_progress="hidden", trigger_mode="always_last", **events)
    return blocks


def shown(answer: Answer, message: str = "") -> tuple:
    """Return the values of the page's components: upload, key, image, objects, classes, attention, message."""
    found = ""
    if answer.key:
        rows = [f"| {name} | {score:.2f} | {x1}, {y1}, {x2}, {y2} |" for name, score, x1, y1, x2, y2 in answer.objects]
        found = "\n".join(["| class | score | box |", "|---|---|---|", *rows]) if rows else "No object."
    return None, answer.key, answer.drawing, found, answer.probabilities, answer.attention, message
