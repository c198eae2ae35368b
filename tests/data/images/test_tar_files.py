"""Tar files with an index hold the same samples as class folders, bit for bit; anything else is refused in one line."""

import bz2
import gzip
import io
import json
import lzma
import os
import runpy
import shutil
import sys
import tarfile
import threading
import time
import unicodedata

import cv2
import numpy as np
import pytest
from conftest import ROOT
from fuzz import tars as fuzz_tars
from support.data_sets import load
from support.small_run import CONFIG, write_images

from msg_ms import UserError
from msg_ms.checkpoint import read_checkpoint
from msg_ms.config import load_config
from msg_ms.data import EvalDataset, ImageFolder, TrainDataset, scan_folder, scan_images
from msg_ms.data.images.class_names import read_class_names
from msg_ms.data.images.splits import folders_from_arrays, folders_to_arrays
from msg_ms.data.images.tar_files import TarFileList
from msg_ms.data.images.tar_index import INDEX
from msg_ms.data.images.tar_scan import index_tar_files, write_index
from msg_ms.data.pipeline import arrays_of
from msg_ms.tasks.classification import ClassificationTask

NFD = unicodedata.normalize("NFD", "café")
LONG = "deep/" * 60 + "x" * 120  # neither fits a tar header
NAMES = [
    "b/images/x.JPEG",
    "b/images-2/w.png",
    "b/z.jpg",
    f"a/{LONG}.png",
    "a/10.png",
    "a/9.png",
    f"{NFD}/é.png",
    "cafz/0.PNG",
    "cafz/\udcff.jpg",  # not UTF-8
]
IGNORED = ["list.txt", "a/notes.txt", "a/._9.png", "b/.thumbnails/z.jpg"]
REMEDY = "only uncompressed tar files with regular files can be read by offset"


def encoded(seed):
    pixels = cv2.resize(np.random.RandomState(seed).randint(0, 256, (6, 6, 3), np.uint8), (40 + seed, 50 - seed))
    return cv2.imencode(".jpg" if seed % 2 else ".png", pixels)[1].tobytes()


def write_folders(root):
    for i, name in enumerate((*NAMES, *IGNORED)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(i))


def write_tar(path, members, form=tarfile.GNU_FORMAT):
    """Write a tar file; a member is a name and its content, or a TarInfo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def both(tmp_path):
    """``folders/train`` and ``folders/val``, and the same images in two tar files each, in another order."""
    for part in ("train", "val"):
        write_folders(tmp_path / "folders" / part)
        names = [(*NAMES, *IGNORED)[i] for i in np.random.RandomState(1).permutation(len(NAMES) + len(IGNORED))]
        members = [(f"./{name}", (tmp_path / "folders" / part / name).read_bytes()) for name in names]
        write_tar(tmp_path / "tars" / part / f"{part}-000000.tar", members[::2], tarfile.PAX_FORMAT)
        write_tar(tmp_path / "tars" / part / f"{part}-000001.tar", members[1::2])
        write_index(tmp_path / "tars" / part)
    return tmp_path


def same_folder(a: ImageFolder, b: ImageFolder):
    assert (a.classes, a.labels) == (b.classes, b.labels)
    assert a.files.names.tobytes() == b.files.names.tobytes() and a.files.ends.tolist() == b.files.ends.tolist()
    assert [a.files.read(i) for i in range(len(a))] == [b.files.read(i) for i in range(len(b))]


def test_order_content_classes_and_warnings_are_those_of_folders(both, tmp_path):
    folder, tars = (scan_images(tmp_path / kind / "train") for kind in ("folders", "tars"))
    assert isinstance(tars.files, TarFileList) and len(tars) == len(NAMES)
    same_folder(folder, tars)
    assert folder.classes == ("a", "b", "cafz", "caf\u00e9")
    for line in (*folder.warnings, *tars.warnings):  # the order of names in a line is the tar's
        assert sum(name in line for name in ("1 hidden folders: b/.thumbnails", "a/notes.txt", "in composed")) == 1
    shown = {tars.files[i].removeprefix(f"{tmp_path}/tars/train/train-00000") for i in range(len(tars))}
    assert shown & {"0.tar:a/9.png", "1.tar:a/9.png"}


def test_the_order_of_classes_from_a_file(both, tmp_path):
    (tmp_path / "index.txt").write_text("cafz\ncaf\u00e9\na\nb\n", encoding="utf-8")
    index = tmp_path / "index.txt"
    parts = [load(tmp_path / kind, 4, training=True, CLASS_INDEX=index) for kind in ("folders", "tars")]
    for folder, tars in zip(*parts, strict=True):
        assert tars.classes == ("cafz", "caf\u00e9", "a", "b")
        same_folder(folder, tars)
    (tmp_path / "index.txt").write_text("cafz\ncafe\na\nb\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"index.txt and the class folders of \S+tars/train differ: cafe, caf"):
        load(tmp_path / "tars", 4, training=True, CLASS_INDEX=tmp_path / "index.txt")


def test_samples_are_bit_equal_in_training_and_evaluation(both, tmp_path):
    config = load_config(None, ["DATA.IMG_SIZE", "32", "DATA.BATCH_SIZE", "4"])  # the full recipe
    results = []
    for kind in ("folders", "tars"):
        train, val = load(tmp_path / kind, 4, training=True)
        data = TrainDataset(train, config.data, config.aug, 4, 0.1, seed=3, workers=2)
        batches = [*data.batches(1, 3), *EvalDataset(val, config.data, True, 2).batches()]
        results.append([array.tobytes() for batch in batches for array in arrays_of(batch)])
    assert results[0] == results[1] and len(results[0]) == 2 * 5 + 3 * 4


def test_a_run_sees_the_same_data_when_it_moves_to_tar_files(both, tmp_path):
    folders, tars = (
        ClassificationTask(load_config(None, DATA__DATA_PATH=str(tmp_path / kind), MODEL__NUM_CLASSES=4))
        for kind in ("folders", "tars")
    )
    assert b"".join(folders.fingerprint()) == b"".join(tars.fingerprint())
    assert folders.metadata() == tars.metadata()  # the names of the classes, which a resumed run compares
    (tmp_path / "index.txt").write_text("cafz\ncaf\u00e9\nb\na\n", encoding="utf-8")
    keys = dict(DATA__DATA_PATH=str(tmp_path / "folders"), MODEL__NUM_CLASSES=4)
    other = ClassificationTask(load_config(None, DATA__CLASS_INDEX=str(tmp_path / "index.txt"), **keys))
    assert b"".join(other.fingerprint()) != b"".join(folders.fingerprint())
    (tmp_path / "folders" / "val" / "a" / "11.png").write_bytes(b"x")
    other = ClassificationTask(load_config(None, **keys))
    assert b"".join(other.fingerprint()) != b"".join(folders.fingerprint())
    # Tar files for training beside folders for evaluation.
    shutil.rmtree(tmp_path / "tars" / "val")
    shutil.copytree(tmp_path / "folders" / "val", tmp_path / "tars" / "val")
    assert [type(part.files) is TarFileList for part in load(tmp_path / "tars", 4, True)] == [True, False]


def test_other_ranks_map_the_list(both, tmp_path):
    parts = load(tmp_path / "tars", 4, training=True)
    for part, copy in zip(parts, folders_from_arrays(folders_to_arrays(parts)), strict=True):
        same_folder(part, copy)
        assert (copy.root, copy.warnings, copy.files.tars) == (part.root, part.warnings, part.files.tars)


def test_class_names_for_predictions(both, tmp_path):
    rows = read_class_names(tmp_path / "tars" / "train", 4)
    assert [row.folder for row in rows] == ["a", "b", "cafz", "caf\u00e9"]


def descriptors(root):
    links = [_target(number) for number in os.listdir("/proc/self/fd")]
    return [link for link in links if link.startswith(str(root)) and link.endswith(".tar")]


def _target(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
    except OSError:  # the descriptor of the listing itself
        return ""


def test_threads_and_forked_processes_read_at_once_with_few_open_files(tmp_path, monkeypatch):
    # Far fewer than the tar files: descriptors are closed while others read.
    monkeypatch.setattr(TarFileList, "OPEN", 2)
    expected = {}
    for number in range(5):
        members = [(f"{label}/{number}-{i}.png", os.urandom(20_000)) for label in "ab" for i in range(20)]
        expected |= dict(members)
        write_tar(tmp_path / f"{number}.tar", members)
    write_index(tmp_path)
    files = scan_images(tmp_path).files
    wrong = []

    def read(files, seed):
        for i in np.random.RandomState(seed).randint(len(files), size=1000):
            if files.read(int(i)) != expected[files.name(int(i))]:
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(files, seed)) for seed in range(4)]
    for thread in threads:
        thread.start()
    child = os.fork()
    if child == 0:
        read(files, 9)
        os._exit(len(wrong) > 0)
    for thread in threads:
        thread.join()
    assert os.waitpid(child, 0)[1] == 0 and not wrong
    assert 0 < len(descriptors(tmp_path)) <= 2
    files.close()
    assert not descriptors(tmp_path)
    assert files.read(0) == expected[files.name(0)] and len(descriptors(tmp_path)) == 1
    threads.clear()
    del files
    assert not descriptors(tmp_path)


# Tar files that are refused


def member(name, kind, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


GOOD = [("a/0.png", b"content" * 300), ("b/0.png", b"other" * 300)]


def tar_bytes(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


WHOLE = tar_bytes(*GOOD)
SECOND = 512 + -(-len(GOOD[0][1]) // 512) * 512  # where the second header begins
END = SECOND + 512 + -(-len(GOOD[1][1]) // 512) * 512
BAD = {
    "gzip": (gzip.compress(WHOLE), rf"x.tar is compressed \(gzip\), but {REMEDY}: unpack it \(gzip -d\)"),
    "bzip2": (bz2.compress(WHOLE), r"x.tar is compressed \(bzip2\)"),
    "xz": (lzma.compress(WHOLE), r"x.tar is compressed \(xz\)"),
    "zstd": (b"\x28\xb5\x2f\xfd" + WHOLE, r"x.tar is compressed \(zstd\), .* unpack it \(zstd -d\)"),
    "no tar": (b"<html>404 not found</html>" * 100, rf"x.tar is not a tar file \(.*\); {REMEDY}"),
    "empty": (b"", r"x.tar is empty; copy or write it again"),
    "zeros": (bytes(10240), r"the tar files hold no class folders; images must be stored as <class>/<image>"),
    "cut in a header": (WHOLE[: SECOND + 100], rf"x.tar ends at byte {SECOND + 100:,} without the zeros"),
    "cut in an image": (WHOLE[: END - 600], r"x.tar is damaged or incomplete after byte .*unexpected end of data"),
    "cut between images": (WHOLE[:SECOND], rf"x.tar ends at byte {SECOND:,} without the zeros that close a tar file"),
    "cut at the end": (WHOLE[:END], rf"x.tar ends at byte {END:,} without the zeros that close a tar file"),
    "damaged header": (
        WHOLE[: SECOND + 5] + b"!" + WHOLE[SECOND + 6 :],
        rf"x.tar is damaged at byte {SECOND:,}; copy or write it again",
    ),
    "two joined": (WHOLE + WHOLE, rf"x.tar has data behind its end at byte {END:,}: join tar files with tar --concat"),
    "hard link": (
        tar_bytes(*GOOD, (member("a/1.png", tarfile.LNKTYPE, linkname="a/0.png"), b"")),
        r"x.tar: a/1.png is a hard link, .* \(tar --dereference --hard-dereference\)",
    ),
    "symbolic link": (
        tar_bytes(*GOOD, (member("a/1.png", tarfile.SYMTYPE, linkname="0.png"), b"")),
        r"x.tar: a/1.png is a symbolic link",
    ),
    "sparse": (
        tar_bytes(
            *GOOD,
            (member("a/1.png", tarfile.REGTYPE, pax_headers={"GNU.sparse.map": "0,3", "GNU.sparse.size": "9"}), b"abc"),
        ),
        r"x.tar: a/1.png is a sparse file, .*: write it without --sparse",
    ),
    "pipe": (
        tar_bytes(*GOOD, (member("a/1.png", tarfile.FIFOTYPE), b"")),
        r"x.tar: a/1.png is a device, a pipe or of an unknown type, .*: leave it out",
    ),
    "unknown type": (tar_bytes(*GOOD, (member("a/1.png", b"Z"), b"")), r"x.tar: a/1.png is a device, a pipe or of an"),
    "outside": (tar_bytes(*GOOD, ("a/../../1.png", b"x")), r"x.tar: the name 'a/../../1.png' is not a path below a"),
    "twice": (tar_bytes(*GOOD, GOOD[0]), r"images with the same name: a/0.png in x.tar and x.tar; remove or rename"),
    "no classes": (
        tar_bytes(("0.png", b"x")),
        r"hold images without class folders \(0.png\); images must be stored as .*; or as pairs of 00000000.jpg",
    ),
    "Windows separators": (
        tar_bytes(("a\\0.png", b"x"), ("b\\0.png", b"x")),
        r"hold names with Windows separators: a\\0.png, b\\0.png; write them again with /",
    ),
    "tar files in a tar file": (
        tar_bytes(("n01.tar", WHOLE), ("n02.tar", WHOLE)),
        r"hold tar files \(n01.tar, n02.tar\), one per class: extract each into a folder of its name, then run python",
    ),
    "one root": (
        tar_bytes(("imagenet/train/a/0.png", b"x"), ("imagenet/train/b/0.png", b"x")),
        r"all images are below imagenet/train/, which would be one class; pass --strip-components 2 if the",
    ),
    "both parts": (
        tar_bytes(("train/a/0.png", b"x"), ("val/a/0.png", b"x")),
        r"the tar files hold train/, val/, which are parts of a data set, not classes; write a tar file of each part",
    ),
    "a label that is a name": (
        tar_bytes(("0.png", b"x"), ("0.cls", b"cat")),
        r"labels that are not whole numbers from 0 to 999,999: x.tar:0.cls has b'cat'; write one number in each",
    ),
    "a negative label": (
        tar_bytes(("0.png", b"x"), ("0.cls", b"-1")),
        r"numbers from 0 .*: x.tar:0.cls has b'",
    ),
    "a long label": (
        tar_bytes(("0.png", b"x"), ("0.cls", b"1" * 50)),
        r"numbers from 0 .*: x.tar:0.cls has b'",
    ),
    "an image without its label": (
        tar_bytes(("0.png", b"x"), ("0.cls", b"1"), ("1.png", b"x")),
        r"images without a .cls file: x.tar:1.png; add or remove them",
    ),
    "a label twice": (tar_bytes(("0.png", b"x"), ("0.cls", b"1"), ("0.cls", b"2")), r"x.tar:0.cls is there twice"),
    "two images of a label": (
        tar_bytes(("0.png", b"x"), ("0.seg.png", b"x"), ("0.cls", b"1")),
        r"several images with one label: x.tar:0.png, x.tar:0.seg.png; keep one image of each sample",
    ),
    "labels alone": (tar_bytes(("0.cls", b"1")), r"the tar files hold labels, but no images"),
    "an empty label": (
        tar_bytes(("0.png", b"x"), ("0.cls", b"")),
        r"numbers from 0 .*: x.tar:0.cls has b''",
    ),
    "class without images": (
        tar_bytes(*GOOD, (member("c", tarfile.DIRTYPE), b""), ("d/notes.txt", b"x")),
        r"class folders without images: c, d; remove or fill them",
    ),
    "empty image": (tar_bytes(*GOOD, ("a/1.png", b"")), r"empty files: a/1.png; remove or download them again"),
    "one class twice": (
        tar_bytes(("caf\u00e9/0.png", b"x"), (f"{NFD}/1.png", b"x")),
        r"has a class twice, with its accents stored in two ways: 'cafe\\u0301'; merge them",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_tar_files_that_are_refused(kind, tmp_path):
    content, message = BAD[kind]
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        write_index(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    assert os.listdir(tmp_path) == ["x.tar"]


def write_labelled(folder, labels=(3, 0, 2)):
    """Two tar files of WebDataset, whose samples have the same names."""
    for number in range(2):
        members = []
        for i, label in enumerate(labels):
            members += [(f"{i:04d}.jpg", encoded(2 * i + number + 1)), (f"{i:04d}.cls", f"{label}\n".encode())]
        write_tar(folder / f"{number}.tar", [*members, ("0000.json", b"{}")])
    write_index(folder)


def test_labels_of_webdataset(tmp_path):
    for part in ("train", "val"):
        write_labelled(tmp_path / part)
    train, val = load(tmp_path, 4, training=True)
    assert train.classes == val.classes == () and train.labels == (0, 0, 2, 2, 3, 3)
    assert [train.files.shown(i).removeprefix(f"{tmp_path}/train/") for i in (0, 1, 5)] == [
        "0.tar:0001.jpg",
        "1.tar:0001.jpg",
        "1.tar:0000.jpg",
    ]
    assert train.files.read(0) == encoded(3) and train.files.read(5) == encoded(2)
    assert train.warnings == (f"{tmp_path}/train: ignored 2 entries that are not images: 0000.json, 0000.json",)
    config = load_config(None, ["DATA.IMG_SIZE", "32", "DATA.BATCH_SIZE", "2"])
    batches = list(EvalDataset(val, config.data, True, 1).batches())
    assert np.concatenate([labels for _, labels, *_ in batches]).tolist() == [0, 0, 2, 2, 3, 3]
    data = TrainDataset(train, config.data, config.aug, 4, 0.1, seed=0, workers=1)
    assert len(data) == 6 and all(batch.labels.shape == (2, 4) for batch in data.batches(0, 1))
    shared = folders_from_arrays(folders_to_arrays((train, val)))
    assert shared[0].labels == train.labels and shared[1].classes == ()

    with pytest.raises(UserError, match=r"train has labels up to 3, but MODEL.NUM_CLASSES=3; pass --opts MODEL"):
        load(tmp_path, 3, training=True)
    (tmp_path / "names.txt").write_text("cat\ndog\nnewt\nfrog\n", encoding="utf-8")
    train, val = load(tmp_path, 4, training=True, CLASS_INDEX=tmp_path / "names.txt")
    assert train.classes == ("cat", "dog", "newt", "frog") and train.labels == (0, 0, 2, 2, 3, 3)
    (tmp_path / "names.txt").write_text("cat\ndog\nnewt\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"names.txt lists 3 classes, but the images in .*train have labels up to 3"):
        load(tmp_path, 3, training=True, CLASS_INDEX=tmp_path / "names.txt")
    with pytest.raises(UserError, match=r"--classes .*train has labels without names; name a file with one class per"):
        read_class_names(tmp_path / "train", 4)
    shutil.rmtree(tmp_path / "val")
    write_folders(tmp_path / "val")
    with pytest.raises(UserError, match=r"val has names of classes and .*train has labels alone: set DATA.CLASS_INDEX"):
        load(tmp_path, 4, training=True)


def test_tar_files_one_folder_deeper(tmp_path):
    write_tar(tmp_path / "train" / "shards" / "0.tar", GOOD)
    with pytest.raises(UserError, match=r"tar files in folders: shards/0.tar; move them to \S+train and run"):
        scan_images(tmp_path / "train")
    with pytest.raises(UserError, match=r"train has no files that end in .tar; move the tar files of shards/ into it"):
        index_tar_files(tmp_path / "train")


def test_images_with_one_name_in_two_tar_files(tmp_path):
    write_tar(tmp_path / "x.tar", GOOD)
    write_tar(tmp_path / "y.tar", GOOD[1:])
    with pytest.raises(UserError, match=r"images with the same name: b/0.png in x.tar and y.tar; remove or rename"):
        index_tar_files(tmp_path)


def test_leading_folders_are_stripped(tmp_path):
    write_tar(tmp_path / "x.tar", [(f"imagenet/train/{name}", content) for name, content in GOOD])
    write_index(tmp_path, strip=2)
    folder = scan_images(tmp_path)
    assert folder.classes == ("a", "b") and folder.files.read(1) == GOOD[1][1] and folder.files.name(1) == "b/0.png"


# Folders and indexes that are refused


@pytest.fixture
def tars(tmp_path):
    for part in ("train", "val"):
        write_tar(tmp_path / part / f"{part}-0.tar", GOOD)
        write_tar(tmp_path / part / f"{part}-1.tar", [("a/1.png", b"more")])
        write_index(tmp_path / part)
    return tmp_path


def edit(path, at, value):
    content = bytearray(path.read_bytes())
    content[at] ^= value
    path.write_bytes(content)


def older(path):
    os.utime(path, (0, time.time() - 100))


CHANGED = "restore the tar files .* or make the index again: python tools/index_tar_files.py "
CHANGES = {
    "missing": (lambda d: (d / "train-0.tar").unlink(), rf"train: train-0.tar missing: {CHANGED}\S+train$"),
    "new": (lambda d: shutil.copy(d / "train-0.tar", d / "z.tar"), rf"train: z.tar not in the index: {CHANGED}"),
    "older": (
        lambda d: older(d / "train-0.tar"),
        r"train: train-0.tar changed since the index was made \(size",
    ),
    "longer": (lambda d: (d / "train-1.tar").write_bytes(WHOLE + bytes(512)), r"train-1.tar changed since the index"),
    "all": (
        lambda d: [(d / "train-0.tar").rename(d / "z.tar"), older(d / "train-1.tar")],
        r"train: train-0.tar missing; z.tar not in the index; train-1.tar changed since",
    ),
    "damaged index": (
        lambda d: edit(d / INDEX, -9, 4),
        rf"{INDEX} is damaged, or not an index of tar files; ",
    ),
    "damaged names": (lambda d: edit(d / INDEX, 9, 1), rf"{INDEX} is damaged, or not an index of tar files; "),
    "cut index": (lambda d: (d / INDEX).write_bytes((d / INDEX).read_bytes()[:200]), rf"{INDEX} is damaged, or not an"),
    "empty index": (lambda d: (d / INDEX).write_bytes(b""), rf"{INDEX} is damaged, or not an index of tar files"),
    "index alone": (
        lambda d: [f.unlink() for f in d.glob("*.tar")],
        r"train: train-0.tar, train-1.tar missing",
    ),
    "no index": (
        lambda d: (d / INDEX).unlink(),
        r"train holds tar files without an index \(train-0.tar, train-1.tar\); run python tools/index_tar_files",
    ),
    "compressed": (
        lambda d: [f.rename(f.with_suffix(".tar.gz" if "tar" in f.name else ".x")) for f in d.iterdir()],
        r"train holds compressed tar files \(train-0.tar.gz, train-1.tar.gz\); only uncompressed ones can be",
    ),
    "class folders, too": (
        lambda d: (d / "a").mkdir(),
        rf"train holds class folders and {INDEX}, the index of tar",
    ),
    "not in a folder": (
        lambda d: [shutil.copy(d / "train-0.tar", d.parent), shutil.rmtree(d)],
        r"train is not a directory; move train-0.tar into it, then run python tools/index_tar_files.py \S+train$",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_folders_that_are_refused(kind, tars):
    load(tars, 2, training=True)
    change, message = CHANGES[kind]
    change(tars / "train")
    with pytest.raises(UserError, match=message) as error:
        load(tars, 2, training=True)
    assert "\n" not in str(error.value)


def test_the_number_and_names_of_classes_must_fit(tars):
    with pytest.raises(UserError, match=r"val has 2 class folders, but MODEL.NUM_CLASSES=1000"):
        load(tars, 1000)
    write_tar(tars / "val" / "val-0.tar", [("a/0.png", b"x"), ("c/0.png", b"x")])
    write_index(tars / "val")
    with pytest.raises(UserError, match=r"train and \S+val have different class folders: b, c; labels would not match"):
        load(tars, 2, training=True)
    (tars / "val.txt").write_text("a/0.png a\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"val holds tar files, whose images have classes: leave out DATA.VAL_LIST="):
        load(tars, 2, training=True, VAL_LIST=tars / "val.txt")


# During a run


@pytest.mark.parametrize("kind", ("cut", "replaced", "gone"))
def test_a_tar_file_that_changes_during_a_run_ends_it(kind, both, tmp_path):
    config = load_config(None, ["DATA.IMG_SIZE", "32", "DATA.BATCH_SIZE", "4"])
    for part in ("train", "val"):
        folder, tar = scan_images(tmp_path / "tars" / part), tmp_path / "tars" / part / f"{part}-000001.tar"
        if kind == "cut":
            [folder.files.read(i) for i in range(len(folder))]  # opened before
            os.truncate(tar, 1000)
            message = (
                rf"{tar.name}:\S+ ends after \d+ of \d+ bytes; restore the tar file, or run tools/index_tar_files.py"
            )
        elif kind == "replaced":
            tar.write_bytes(WHOLE)
            message = (
                rf"{tar.name} has changed since the run started; restore the tar file, or run tools/index_tar_files"
            )
        else:
            tar.unlink()
            message = rf"can't read \S+{tar.name}: No such file or directory"
        if part == "train":
            batches = TrainDataset(folder, config.data, config.aug, 4, 0.1, 0, 1).batches(0, 9)
        else:
            batches = EvalDataset(folder, config.data, True, 1).batches()
        with pytest.raises(UserError, match=message) as error:
            list(batches)
        assert "\n" not in str(error.value)


def test_a_broken_image_is_named_and_replaced(tmp_path):
    members = [(f"{label}/{i}.png", encoded(2 * i)) for label in "ab" for i in range(4)]
    members[5] = (members[5][0], b"no image")
    write_tar(tmp_path / "x.tar", members)
    write_index(tmp_path)
    config, lines = load_config(None, ["DATA.IMG_SIZE", "32", "DATA.BATCH_SIZE", "4"]), []
    data = TrainDataset(scan_images(tmp_path), config.data, config.aug, 2, 0.1, 0, 1)
    assert len(list(data.batches(0, 2, lines.append))) == 4
    assert lines == [f"can't decode {tmp_path}/x.tar:b/1.png (cannot identify image file); another image replaces it"]
    with pytest.raises(UserError, match=r"can't evaluate: \S+/x.tar:b/1.png can't be decoded"):
        list(EvalDataset(scan_images(tmp_path), config.data, True, 1).batches())


# Tools


@pytest.fixture
def tool(monkeypatch, capsys):
    """Calls the ``main`` of a tool in this process; gives the lines that it prints."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / "tools" / name))["main"]()
        return capsys.readouterr().out.splitlines()

    return run


def test_tar_files_from_folders(tool, tmp_path):
    for part in ("train", "val"):
        write_folders(tmp_path / "data" / part)
    contents = []
    for name in ("one", "two"):
        assert f"{name}/train: {len(NAMES)} images in 4 classes, 1 tar files" in tool("make_tar_files.py", "data", name)
        contents.append((tmp_path / name / "train" / "train-000000.tar").read_bytes())
        assert sorted(os.listdir(tmp_path / name)) == ["train", "val"]  # no temporary folders
        for part in ("train", "val"):
            same_folder(scan_folder(tmp_path / "data" / part), scan_images(tmp_path / name / part))
    assert contents[0] == contents[1]


def test_folders_that_are_not_written(tool, tmp_path, monkeypatch):
    write_folders(tmp_path / "data" / "train")
    (tmp_path / "full" / "train").mkdir(parents=True)
    (tmp_path / "full" / "train" / "mine.txt").write_text("mine", encoding="utf-8")
    for arguments, message in (
        (("data", "full"), r"full/train exists; name a new folder"),
        (("full", "new"), r"full/train has no class folders"),
        (("data/train", "new"), r"data/train holds neither train/ nor val/; name the folder of the data set"),
        (("data", "new", "--tar-size", "0"), r"--tar-size 0: must be at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            tool("make_tar_files.py", *arguments)
    monkeypatch.setattr(os, "fsync", lambda _: exec("raise OSError(28, 'No space left on device')"))
    with pytest.raises(UserError, match=r"can't write new/train: No space left on device"):
        tool("make_tar_files.py", "data", "new")
    assert (
        os.listdir(tmp_path / "new") == [] and (tmp_path / "full" / "train" / "mine.txt").read_text("utf-8") == "mine"
    )


def test_several_tar_files_hold_all_images_once(tmp_path):
    write_tar_files = runpy.run_path(str(ROOT / "tools" / "make_tar_files.py"))["write_tar_files"]
    for i in range(10):
        (tmp_path / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "ab"[i % 2] / f"{i}.png").write_bytes(os.urandom(3000))
    (tmp_path / "tars").mkdir()
    write_tar_files(scan_folder(tmp_path / "data"), tmp_path / "tars", "train", 9000)
    write_index(tmp_path / "tars")
    assert len(list((tmp_path / "tars").glob("train-*.tar"))) == 4  # three images of 3,584 bytes each
    same_folder(scan_folder(tmp_path / "data"), scan_images(tmp_path / "tars"))
    # Any tar program reads them.
    with tarfile.open(tmp_path / "tars" / "train-000001.tar") as archive:
        # Python 3.10.11 and 3.11.3 have no filters.
        filters = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path / "extracted", **filters)
    for path in (tmp_path / "extracted").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "data" / path.relative_to(tmp_path / "extracted")).read_bytes()


def test_an_index_for_existing_tar_files(tool, tmp_path):
    write_tar(tmp_path / "train" / "x.tar", [*GOOD, ("a/notes.txt", b"x")])
    write_tar(tmp_path / "val" / "x.tar", GOOD)
    assert tool("index_tar_files.py", "train", "val") == [
        "train: 2 images in 2 classes, 1 tar files",
        "  ignored 1 entries that are not images: a/notes.txt",
        "val: 2 images in 2 classes, 1 tar files",
    ]
    before = (tmp_path / "train" / INDEX).read_bytes()
    tool("index_tar_files.py", "train")
    assert (tmp_path / "train" / INDEX).read_bytes() == before  # the same files, the same index
    (tmp_path / "train" / INDEX).write_text("my notes", encoding="utf-8")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "x.tar.gz").write_bytes(b"")
    for arguments, message in (
        (("train",), rf"train/{INDEX} exists and is not an index of tar files; remove or rename it"),
        (("nowhere",), r"nowhere is not a directory; name the folder that holds the tar files"),
        (("bare",), r"bare has no files that end in .tar; x.tar.gz: unpack compressed files first"),
        (("val", "--strip-components", "-1"), r"--strip-components -1: must be at least 0"),
        (("val", "--strip-components", "1"), r"val: the tar files hold images without class folders"),
    ):
        with pytest.raises(UserError, match=message):
            tool("index_tar_files.py", *arguments)
    assert (tmp_path / "train" / INDEX).read_text("utf-8") == "my notes"


def test_check_dataset_reads_tar_files(command, tmp_path):
    members = [(f"{label}/{i}.png", encoded(2 * i)) for label in "ab" for i in range(4)]
    for part in ("train", "val"):
        write_tar(tmp_path / "data" / part / "x.tar", [*members[:7], ("b/3.png", b"no image")])
        write_index(tmp_path / "data" / part)
    (tmp_path / "data" / "train" / INDEX).unlink()
    done = command("tools/check_dataset.py", "data", status=1)
    assert "data/val: 8 images in 2 classes" in done.stdout and "1 files can't be decoded" in done.stdout
    assert (
        "problem: data/train holds tar files without an index (x.tar); run python tools/index_tar_files" in done.stdout
    )
    assert (tmp_path / "bad_files.txt").read_text(
        encoding="utf-8"
    ) == "data/val/x.tar:b/3.png\tcannot identify image file\n"


def test_the_fuzz_script_finds_nothing():
    counts, failures = fuzz_tars.run(seed=5, seconds=3)
    assert not failures and counts["accepted"] and counts["refused"] and counts["sound"]


def bits(checkpoint):
    return {name: value.tobytes() for name, value in read_checkpoint(checkpoint)[0].items()}


@pytest.mark.slow
def test_a_run_moves_from_folders_to_tar_files_and_back(command, tmp_path):
    """Training that resumes on tar files ends with the weights of one on folders, and eval.py measures the same."""
    write_images(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    command("tools/make_tar_files.py", "data", "tars")

    def train(data, tag, *flags):
        command("train.py", "--cfg", "small.yaml", "--data-path", data, "--tag", tag, "--output", "out", *flags)
        return tmp_path / "out" / "small" / tag

    whole = train("data", "whole")
    first, last = sorted(whole.glob("ckpt_*.ckpt"))
    moved = train("tars", "moved", "--resume", first)
    assert bits(moved / last.name) == bits(last)
    metrics = [(run / "metrics.jsonl").read_text("utf-8").splitlines()[-1] for run in (whole, moved)]
    measured = [[json.loads(line)[key] for key in ("loss", "top1", "train_loss")] for line in metrics]
    assert measured[0] == measured[1]
    flags = ("--cfg", "small.yaml", "--resume", last)
    printed = [command("eval.py", *flags, "--data-path", data).stdout.splitlines()[-1] for data in ("data", "tars")]
    assert printed[0] == printed[1] and "on 9 images" in printed[0]
