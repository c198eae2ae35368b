"""The command lines in locales that are not UTF-8: names of files and classes with other letters, and no tracebacks."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from support.coco import small_coco, write_split
from support.small_run import CONFIG, write_images

DATA, CLASSES, CONFIG_FILE, OUTPUT, TAG = "数据é", ("红", "grün", "b c"), "配置.yaml", "输出", "标签"
CHARMAP = Path("/usr/share/i18n/charmaps/GBK.gz")
STRICT = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # Python would choose UTF-8 for LC_ALL=C


def gbk_locale(folder: Path) -> dict[str, str]:
    """Make the Chinese locale with GBK; skip the test where there are no sources of it."""
    if shutil.which("localedef") is None or not CHARMAP.exists():
        pytest.skip("localedef or its sources are missing: apt install locales")
    (folder / "GBK").write_bytes(gzip.decompress(CHARMAP.read_bytes()))
    subprocess.run(["localedef", "-i", "zh_CN", "-f", str(folder / "GBK"), str(folder / "zh_CN.GBK")], check=True)
    return {"LC_ALL": "zh_CN.GBK", "LOCPATH": str(folder)}


@pytest.fixture(params=["C", "GBK"])
def run(request, tmp_path, tmp_path_factory):
    """Runs one of the project's programs in a locale; the names of its arguments have the locale's encoding."""
    gbk = request.param == "GBK"
    own = gbk_locale(tmp_path_factory.mktemp("locale")) if gbk else {"LC_ALL": "C"}
    encoding = "gbk" if gbk else "utf-8"

    def start(script: str, *arguments: str, status: int = 0) -> str:
        line = [sys.executable, str(ROOT / script), *(text.encode(encoding) for text in arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **STRICT, **own}
        done = subprocess.run(line, capture_output=True, cwd=tmp_path, env=environment, timeout=550)
        output = (done.stdout + done.stderr).decode(encoding, "replace")
        assert done.returncode == status and "Traceback" not in output, output
        assert status == 0 or "error: " in output.splitlines()[-1], output
        return output

    start.encoding, start.folder = encoding, tmp_path
    return start


def named(run, *parts: str) -> Path:
    """Return a path below the working folder whose name has the locale's encoding."""
    return run.folder / os.fsdecode("/".join(parts).encode(run.encoding))


def write_data(run) -> None:
    write_images(run.folder)
    (run.folder / "data").rename(named(run, DATA))
    for part in ("train", "val"):
        for label, name in enumerate(CLASSES):
            (named(run, DATA) / part / str(label)).rename(named(run, DATA, part, name))
    named(run, CONFIG_FILE).write_text(CONFIG, encoding="utf-8")


def test_names_in_files_that_the_locale_does_not_have_end_in_one_line(run):
    (run.folder / "run.yaml").write_text("BASE: '데이터.yaml'\n", encoding="utf-8")
    output = run("train.py", "--cfg", "run.yaml", status=2)
    assert "PYTHONUTF8=1" in output and "can't be a file name: this locale's encoding is " in output


@pytest.mark.slow
def test_a_whole_run(run):
    write_data(run)
    assert "no problems found" in run("tools/check_dataset.py", DATA)
    flags = ["--cfg", CONFIG_FILE, "--data-path", DATA]
    run("train.py", *flags, "--output", OUTPUT, "--tag", TAG)
    best = f"{OUTPUT}/small/{TAG}/best.ckpt"
    assert "on 9 images" in run("eval.py", *flags, "--resume", best)
    run("tools/predict.py", *flags[:2], "--resume", best, "--json", "预测.json", "--picture", "图.png", f"{DATA}/val")
    found = json.loads(named(run, "预测.json").read_text("utf-8"))
    assert len(found["images"]) == 9
    if run.encoding == "gbk":  # ASCII has no Chinese letters: they are escaped, as bytes that are no text are
        assert set(CLASSES) == {row["class"] for image in found["images"] for row in image["predictions"]}
    run("tools/plot_run.py", f"{OUTPUT}/small/{TAG}")
    run("tools/export_weights.py", "--input", best, "--output", "发布")
    run("tools/export.py", *flags[:2], "--resume", best, "--output", "图.mindir")


@pytest.mark.slow
def test_data_checks_conversion_and_doctor(run):
    write_data(run)
    shutil.copy(ROOT / "tests" / "fixtures" / "half.pth", named(run, "模型.pth"))
    assert "every value exact" in run("tools/convert_torch_ckpt.py", "--input", "模型.pth", "--output", "转.ckpt")
    run("msg_ms/commands/doctor.py")
    for name, seed in (("train2017", 0), ("val2017", 1)):
        content, pixels = small_coco([(64, 48)] * 4, seed=seed)
        for image in content["images"]:
            image["file_name"] = f"图{image['file_name']}"
        for category in content["categories"]:
            category["name"] = f"类别{category['name']}"
        # The names of annotation files are UTF-8 on the disk, too, in any locale.
        write_split(run.folder / "coco", name, content, {f"图{file}": values for file, values in pixels.items()})
    assert "no problems found" in run("tools/check_dataset.py", "coco")
    for script, *others in (["train.py"], ["eval.py"], ["tools/predict.py", "--resume", "x", "图.png"]):
        assert "没有.yaml" in run(script, "--cfg", "没有.yaml", *others, status=2) or run.encoding != "gbk"
    for script in ("tools/plot_run.py", "tools/check_dataset.py", "tools/index_tar_files.py"):
        run(script, "没有", status=2)
