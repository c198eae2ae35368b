"""Uploaded files: images within limits, or one message; large requests end unread. None of this needs gradio."""

import asyncio
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from msg_ms import UserError
from msg_ms.serve.body_limit import Guard
from msg_ms.serve.uploads import Limits, read_upload

LIMITS = Limits(megabytes=1, megapixels=2)


def png(height, width, rows=b""):
    """Return a PNG file with a header of any size, and the compressed bytes of its rows."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm"])
def test_images_are_read(suffix, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    (tmp_path / "x").write_bytes(cv2.imencode(suffix, pixels)[1].tobytes())
    assert np.abs(read_upload(tmp_path / "x", LIMITS).astype(int) - pixels[..., ::-1]).mean() < 60
    Image.new("RGB", (17, 12)).save(tmp_path / "x", "GIF")
    assert read_upload(tmp_path / "x", LIMITS).shape == (12, 17, 3)


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    "content, message",
    [
        (SVG, "This file is not an image: JPEG, PNG, BMP, GIF, PGM, PPM, TIFF and WebP are read."),
        (EPS, "This file is not an image: "),
        (b"", "This file is not an image: "),
        (b"text", "This file is not an image: "),
        (png(1500, 2000), "This image has 2,000 x 1,500 pixels; at most 2 million are accepted."),
        (png(60000, 60000), "This image has too many pixels; at most 2 million are accepted."),
        (png(9, 9, b"\0" * 9), "This image can't be read ("),
        (bytes(10**6 + 1), "This file has 1 MB; at most 1 MB are accepted."),
    ],
    ids=["svg", "eps", "empty", "text", "large", "bomb", "damaged", "bytes"],
)
def test_other_files_have_a_message(content, message, tmp_path):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_upload(tmp_path / "x.png", LIMITS)
    assert str(error.value).startswith(message)


def ask(headers, chunks):
    """Send a request to a guarded application that reads it all; return the status, headers and chunks it read."""
    sent, read = [], []

    async def app(scope, receive, send):
        more = True
        while more:
            message = await receive()
            read.append(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})

    parts = iter(chunks)

    async def receive():
        chunk = next(parts, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(app, 100)({"type": "http", "headers": headers}, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), len(read)


def test_requests_that_are_too_large_are_not_read():
    status, headers, read = ask([(b"content-length", b"100")], [bytes(60), bytes(40)])
    assert (status, read) == (200, 3) and headers[b"content-security-policy"].startswith(b"default-src 'self'")
    assert ask([(b"content-length", b"101")], [bytes(60)])[::2] == (413, 0)
    assert ask([(b"content-length", b"-1")], [])[0] == 413
    assert ask([], [bytes(60)] * 9)[::2] == (413, 1)  # chunked, of unknown length
