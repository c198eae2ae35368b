"""The page in a real browser, with many people at once and hostile files. Needs the extra serve and chromium."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from support.small_run import COLORS, CONFIG
from support.stored_model import write_model
from test_uploads import SVG, png

pytestmark = pytest.mark.slow
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MEGA = 10**6
# Notes each name and address that the process looks up or connects to.
AUDIT = """
import os, sys

with open(os.environ["MSG_MS_TEST_AUDIT"], "a", encoding="utf-8") as file:
    file.write("started\\n")

def note(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["MSG_MS_TEST_AUDIT"], "a", encoding="utf-8") as file:
            file.write(f"{event} {args[-1] if event == 'socket.connect' else args[0]}\\n")

sys.addaudithook(note)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a page for a small classifier, its process, and the file of the process's connections."""
    pytest.importorskip("gradio", reason="the extra serve is not installed")
    folder = tmp_path_factory.mktemp("page")
    write_model(folder / "best.ckpt", CONFIG, '["red", "green", "blue"]')
    (folder / "sitecustomize.py").write_text(AUDIT, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "MSG_MS_TEST_AUDIT": str(folder / "audit.txt"),
        "TMPDIR": str(folder),
        "no_proxy": "127.0.0.1",
    }
    line = [sys.executable, str(ROOT / "tools" / "serve.py"), "best.ckpt", "--port", "0", "--max-mb", "5"]
    line += ["--max-megapixels", "4"]
    with subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.PIPE, encoding="utf-8") as process:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), address
        yield address, process, folder
        process.terminate()
        process.wait(60)
    assert not list(folder.glob("msg_ms-page-*"))  # the uploads are gone


@pytest.fixture(scope="module")
def page(server):
    """The page in a browser, and the addresses that the browser asked for."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(server[0])
        page.wait_for_selector("#upload input[type=file]", state="attached", timeout=60_000)
        yield page
        browser.close()


def picture(colour, side=40):
    pixels = np.random.default_rng(0).normal(COLORS[colour], 20, (side, side + 6, 3)).clip(0, 255).astype(np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def drop(page, name, content):
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    page.set_input_files("#upload input[type=file]", file)


def text_of(page, selector, pattern, seconds=60):
    """Wait until an element's text matches; return the text."""
    end = time.monotonic() + seconds
    while not re.search(pattern, text := page.inner_text(selector)):
        assert time.monotonic() < end, text
        page.wait_for_timeout(100)
    return text


def test_an_image_has_classes_and_attention(server, page):
    drop(page, "a.png", picture(0))
    text = text_of(page, "#classes", r"\d+%")
    assert all(name in text for name in ("red", "green", "blue"))
    page.wait_for_selector("#attention img")
    page.wait_for_selector("#picture img")
    width = page.evaluate("document.querySelector('#attention img').naturalWidth")
    assert width == 3 * 332  # the input and two stages, see draw_msg_attention
    assert "Drop an image" in page.inner_text("#upload")  # ready for the next one
    host = urllib.parse.urlsplit(server[0]).netloc
    others = {url for url in page.asked if not url.startswith(("data:", "blob:")) and host not in url}
    assert len(page.asked) > 10 and not others
    started, *connections = (server[2] / "audit.txt").read_text("utf-8").splitlines()
    assert started == "started" and not [line for line in connections if "127.0.0.1" not in line]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("picture.svg", SVG, "This file is not an image"),
        ("picture.png", b"text", "This file is not an image"),
        ("bomb.png", png(30_000, 5_000), "This image has 5,000 x 30,000 pixels; at most 4 million are accepted"),
        ("bomb.png", png(60_000, 60_000, bytes(10**6)), "This image has too many pixels"),
    ],
    ids=["svg", "text", "pixels", "bomb"],
)
def test_other_files_have_a_message_and_the_page_stays(page, name, content, message):
    drop(page, name, content)
    assert message in text_of(page, "#message", re.escape(message))
    drop(page, "b.png", picture(1))
    text_of(page, "#message", r"^\s*$")
    text_of(page, "#classes", r"\d+%")


def test_a_file_that_is_too_large_is_refused_by_the_browser(page):
    drop(page, "large.png", bytes(6 * MEGA))
    page.wait_for_selector("text=/exceeds|too large|maximum/i", timeout=20_000)
    drop(page, "b.png", picture(1))
    text_of(page, "#classes", r"\d+%")


# Without a browser: the protocol of the page, as gradio's client speaks it.


def multipart(content):
    return (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + content + b"\r\n--x--\r\n"
    )


def connect(address):
    return http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=300)


def upload(address, content):
    connection = connect(address)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    connection.request("POST", "/gradio_api/upload", multipart(content), headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 200, body
    return json.loads(body)[0]


def config_of(address):
    connection = connect(address)
    connection.request("GET", "/config")
    return json.loads(connection.getresponse().read())


def ask(address, config, content, session):
    """Upload a file and return the values of the components."""
    (number,) = [d["id"] for d in config["dependencies"] if any(event == "upload" for _, event in d["targets"])]
    file = {"path": upload(address, content), "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png"}
    body = json.dumps({"data": [file, 0.3], "fn_index": number, "session_hash": session})
    connection = connect(address)
    connection.request("POST", "/gradio_api/queue/join", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    connection.close()
    connection = connect(address)
    connection.request("GET", f"/gradio_api/queue/data?session_hash={session}")
    for line in connection.getresponse():
        if line.startswith(b"data: "):
            message = json.loads(line[6:])
            if message["msg"] == "process_completed":
                connection.close()
                assert message["success"], message
                return message["output"]["data"]
    raise AssertionError("the answer ends early")


def resident(process):
    """Return the memory of a process in bytes: now, and at most."""
    status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
    return [int(re.search(rf"^{key}:\s+(\d+) kB", status, re.M)[1]) * 1024 for key in ("VmRSS", "VmHWM")]


def test_fifty_people_at_once(server):
    address, process, _ = server
    config = config_of(address)
    colours = [i % 3 for i in range(50)]
    alone = [ask(address, config, picture(colour), f"alone{colour}")[4] for colour in range(3)]
    before, _ = resident(process)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(ask, address, config, picture(colour), f"person{i}") for i, colour in enumerate(colours)]
        answers = [answer.result(timeout=300)[4] for answer in asked]
    assert all(answer == alone[colour] for answer, colour in zip(answers, colours, strict=True))
    assert len({json.dumps(answer) for answer in alone}) == 3
    assert resident(process)[0] - before < 200 * MEGA


def test_a_gigabyte_ends_unread_with_bounded_memory(server):
    address, process, folder = server
    _, before = resident(process)
    for length in (10**9, None):  # said at first, or in chunks of unknown number
        connection = connect(address)
        connection.putrequest("POST", "/gradio_api/upload")
        connection.putheader("Content-Type", "multipart/form-data; boundary=x")
        connection.putheader(*(("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))))
        connection.endheaders()
        sent = 0
        head = multipart(b"").partition(b"\r\n--x--")[0]
        with contextlib.suppress(ConnectionError):  # the server does not wait for the rest
            for part in [head, *([bytes(MEGA)] * 1000)]:
                connection.send(b"%x\r\n%s\r\n" % (len(part), part) if length is None else part)
                sent += len(part)
        with contextlib.suppress(ConnectionError, http.client.BadStatusLine):
            assert connection.getresponse().status == 413
        connection.close()
        assert sent < 10**8
    assert resident(process)[1] - before < 100 * MEGA
    assert (
        sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.suffix != ".ckpt") < 10 * MEGA
    )
    ask(address, config_of(address), picture(2), "after")


def test_bombs_need_no_memory(server):
    address, process, _ = server
    config = config_of(address)
    _, before = resident(process)
    for i, bomb in enumerate((png(60_000, 60_000, bytes(10**7)), png(13_000, 13_000, bytes(10**7)), png(1_999, 2_000))):
        message = ask(address, config, bomb, f"bomb{i}")[6]
        assert "pixels" in message or "can't be read" in message
    assert resident(process)[1] - before < 150 * MEGA
