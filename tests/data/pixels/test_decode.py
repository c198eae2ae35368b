"""Decoding: Pillow's verdict and Pillow's pixels for every file; extreme sizes."""

import io
import resource
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT
from fuzz.images import run
from PIL import Image, ImageCms

from msg_ms.data.pixels.decode import decode, scan_jpeg
from msg_ms.data.pixels.transforms import random_resized_crop, resize_and_crop

# pytest sets its own filters, so the ones in the module have no effect here.
pytestmark = pytest.mark.filterwarnings("ignore")

PIXELS = cv2.resize(np.random.RandomState(0).randint(0, 256, (12, 16, 3), np.uint8), (400, 300))


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def jpeg(**options):
    return encoded(Image.fromarray(PIXELS), "JPEG", **{"quality": 90, **options})


@pytest.mark.parametrize("mode", ("L", "P", "RGBA", "LA", "1", "CMYK"))
@pytest.mark.parametrize("kind", ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"))
def test_images_of_other_modes_become_rgb(mode, kind):
    try:
        data = encoded(Image.fromarray(PIXELS[:30, :20]).convert(mode), kind)
    except (OSError, ValueError):
        pytest.skip(f"Pillow writes no {kind} of mode {mode}")
    pixels = decode(data)
    assert pixels.shape == (30, 20, 3) and pixels.dtype == np.uint8 and (pixels == by_pillow(data)).all()


def test_palette_with_transparency_and_ycck():
    palette = Image.fromarray(PIXELS[:30, :20]).quantize(16)
    for transparency in (3, bytes(range(0, 160, 10))):
        data = encoded(palette, "PNG", transparency=transparency)
        assert (decode(data) == by_pillow(data)).all()
    ycck = bytearray(encoded(Image.fromarray(PIXELS[:30, :20]).convert("CMYK"), "JPEG"))
    ycck[ycck.index(b"Adobe") + 11] = 2  # the colour transform of YCCK
    assert (decode(bytes(ycck)) == by_pillow(bytes(ycck))).all()


def test_16_bits_keep_their_upper_8():
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    upper = np.dstack([(values >> 8).astype(np.uint8)] * 3)
    assert abs(upper.mean() - 127.5) < 1
    grey = Image.fromarray(values)
    big_endian = Image.frombytes("I;16B", (64, 64), values.astype(">u2").tobytes())
    files = [encoded(grey, "PNG"), encoded(grey, "TIFF"), encoded(big_endian, "TIFF")]
    files += [encoded(Image.fromarray(values.astype(np.int32)), kind) for kind in ("PNG", "PPM")]
    files += [cv2.imencode(suffix, cv2.merge([values] * 3))[1].tobytes() for suffix in (".png", ".tiff")]
    files += [cv2.imencode(".png", cv2.merge([values] * 4))[1].tobytes()]
    for i, data in enumerate(files):
        assert (decode(data) == upper).all(), i
    inverted = encoded(grey, "TIFF", tiffinfo={262: 0})  # white is zero
    assert (decode(inverted) == 255 - upper).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.0, 0.5, 1.0]], "float image with values from 0 to 1"),
        ([[0.0, 300.0]], "float image with values from 0 to 300"),
        ([[np.nan, 3.0]], "float image with values from nan"),
        ([[-5.0, 3.0]], "float image with values from -5"),
        (np.array([[0, 70000]], np.int32), "32-bit image with values from 0 to 70000"),
    ],
)
def test_values_of_unknown_range_are_refused(values, message):
    values = np.array(values)
    data = encoded(Image.fromarray(values.astype(np.float32) if values.dtype == float else values), "TIFF")
    with pytest.raises(ValueError, match=message):
        decode(data)


def test_float_images_with_grey_levels_are_accepted():
    values = np.array([[0, 17, 254.5]])
    for dtype in (np.float32, np.int32):
        assert decode(encoded(Image.fromarray(values.astype(dtype)), "TIFF"))[0, :, 0].tolist() == [0, 17, 254]


@pytest.mark.parametrize(
    "options",
    (
        {"progressive": True},
        {"subsampling": 0},
        {"quality": 30},
        {"restart_marker_blocks": 5},
        {"comment": b"text"},
        {"orientation": 6},
        {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
    ),
)
def test_intact_jpeg_files_have_pillows_pixels(options):
    options = dict(options)
    orientation = options.pop("orientation", None)
    if orientation:
        exif = Image.Exif()
        exif[274] = orientation  # rotated by 90 degrees, which training ignores like torchvision
        options["exif"] = exif
    for data in (jpeg(**options), jpeg(**options) + b"trailing bytes"):
        assert scan_jpeg(data)[0]  # OpenCV's way
        assert decode(data).shape == PIXELS.shape and (decode(data) == by_pillow(data)).all()


@pytest.mark.parametrize("options", ({}, {"progressive": True}, {"restart_marker_blocks": 5}))
@pytest.mark.parametrize("block", (b"\xff" * 64, b"\xff\x37", b"\xff\xc4", b"\xff\xda\x00", bytes(512)))
def test_damaged_jpeg_files_have_pillows_verdict(options, block):
    data, refused = jpeg(**options), 0
    for at in range(700, len(data) - len(block), 1999):
        damaged = data[:at] + block + data[at + len(block) :]
        try:
            expected = by_pillow(damaged)
        except OSError:
            refused += 1
            with pytest.raises(OSError, match=r"broken data stream|truncated"):
                decode(damaged)
        else:
            assert (decode(damaged) == expected).all()
    assert refused or block in (bytes(512), b"\xff\x37", b"\xff\xda\x00", b"\xff\xc4")


def test_random_damage_never_disagrees_with_pillow():
    cases, found = run(seed=5, seconds=5, keep=None)
    assert cases > 100 and not found


def huge(data, marker=b"\xff\xc0"):
    """Return a small JPEG file whose header claims 20,000 x 20,000 pixels."""
    at = data.index(marker) + 5
    return data[:at] + (20_000).to_bytes(2, "big") * 2 + data[at + 4 :]


def test_a_huge_header_is_refused_without_the_memory(tmp_path):
    small = Image.fromarray(PIXELS[:16, :16])
    (tmp_path / "a.jpg").write_bytes(huge(encoded(small, "JPEG")))
    (tmp_path / "b.jpg").write_bytes(huge(encoded(small, "JPEG", progressive=True), b"\xff\xc2"))
    png = encoded(small, "PNG")
    (tmp_path / "c.png").write_bytes(png[:16] + (20_000).to_bytes(4, "big") * 2 + png[24:])
    bmp = encoded(small, "BMP")
    (tmp_path / "d.bmp").write_bytes(bmp[:18] + (20_000).to_bytes(4, "little") * 2 + bmp[26:])
    gif = encoded(small, "GIF")
    (tmp_path / "e.gif").write_bytes(gif[:6] + (20_000).to_bytes(2, "little") * 2 + gif[10:])
    (tmp_path / "f.tif").write_bytes(encoded(small, "TIFF", tiffinfo={256: 20_000, 257: 20_000}))
    lines = [
        "import resource, sys, pathlib",
        "from msg_ms.data.pixels.decode import decode",
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss",
        "before = peak()",
        "for file in sys.argv[1:]:",
        "    try: decode(pathlib.Path(file).read_bytes())",
        "    except Exception as error: print(type(error).__name__, error)",
        "print(peak() - before)",
    ]
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), *files], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    *refused, kilobytes = done.stdout.splitlines()
    assert sum("exceeds limit of 178956970 pixels" in line for line in refused) >= 5, done.stdout + done.stderr
    assert len(refused) == 6 and int(kilobytes) < 50_000


@pytest.mark.parametrize("shape", ((1, 1), (1, 3000), (3000, 1), (2, 100_000), (7, 500)))
@pytest.mark.parametrize("size", (32, 1101))
def test_extreme_sizes_work_in_little_memory(shape, size):
    image = np.random.RandomState(0).randint(0, 256, (*shape, 3), np.uint8)
    for interpolation in ("bicubic", "bilinear"):
        assert resize_and_crop(image, size, interpolation, True).shape == (size, size, 3)
        assert resize_and_crop(image, size, interpolation, False).shape == (size, size, 3)
        rng = np.random.default_rng(0)
        cut = random_resized_crop(image, size, (0.08, 1.0), (3 / 4, 4 / 3), interpolation, 0.5, rng)
        assert cut.shape == (size, size, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2_000_000  # kilobytes


@pytest.mark.parametrize("shape", ((3, 200), (200, 3), (40, 2100)))
@pytest.mark.parametrize("interpolation", ("bicubic", "bilinear"))
def test_the_crop_of_a_long_image_is_the_centre_of_the_resized_image(shape, interpolation):
    image = cv2.resize(np.random.RandomState(0).randint(0, 256, (*shape, 3), np.uint8), shape[::-1])
    short, long = 73, int(73 * max(shape) / min(shape))
    height, width = (short, long) if shape[0] < shape[1] else (long, short)
    mode = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    whole = np.asarray(Image.fromarray(image).resize((width, height), mode)).astype(int)
    top, left = round((height - 64) / 2), round((width - 64) / 2)
    difference = resize_and_crop(image, 64, interpolation, True) - whole[top : top + 64, left : left + 64]
    assert np.abs(difference).max() <= 2 and np.abs(difference).mean() < 0.2
