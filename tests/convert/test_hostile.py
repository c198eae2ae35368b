"""Over 600 damaged and hostile files: nothing in them runs, only the output is written, errors are one line."""

import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from support.hostile import cases, ours, write_cases
from support.hostile_pickles import CALLS, Case, archive, beside_weights, machines, text
from support.reference import FIXTURES

from msg_ms.commands.convert_torch_ckpt import Options, convert

WORKER = Path(__file__).parents[1] / "support" / "hostile_worker.py"
# Python's allocator and MindSpore's first calls need this for any file; measured at 5 MB.
EXTRA_KB = 16 << 10


def problems(files: list[Case], folder: Path, output: str) -> tuple[list[str], int]:
    """Convert the files in another process; return the faults of each, and the number of files that converted."""
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    write_cases(folder / "in", files)
    paths = [str(folder / "in" / f"{number}{case.suffix}") for number, case in enumerate(files)]
    # Convert a good file first, so that the memory of a process's first conversion is not counted.
    first = str(FIXTURES / "half.pth") if output.endswith(".ckpt") else paths[0]
    line = [sys.executable, str(WORKER), str(folder / "out" / output), first, *paths]
    done = subprocess.run(line, capture_output=True, encoding="utf-8", cwd=folder / "out", timeout=300)
    results = [json.loads(row) for row in done.stdout.splitlines()][1:]
    assert len(results) == len(files), f"ended at {files[len(results)].name}: {done.stderr[-2000:]}"
    bad = []
    for case, result in zip(files, results, strict=True):
        allowed = 4 * len(case.data) // 1024 + EXTRA_KB
        faults = {
            "status": result["status"] != 2 and not (result["status"] == 0 and case.may_convert),
            "text": result["status"] == 2 and (not result["errors"] or "\n" in result["errors"].strip()),
            "slow": result["seconds"] > 10,
            "audited": bool(result["audited"]),
            "memory": result["peak_kb"] > allowed,
            "left": result["left"] != ([output] if result["status"] == 0 else []),
        }
        if any(faults.values()):
            bad.append(f"{case.name}: {[name for name, is_bad in faults.items() if is_bad]} {result}")
    return bad, sum(result["status"] == 0 for result in results)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_pytorch_files(tmp_path):
    files = list(cases())
    assert len(files) > 500 and len({case.name for case in files}) == len(files)
    bad, converted = problems(files, tmp_path, "out.ckpt")
    assert not bad, "\n".join(bad)
    assert converted >= len(CALLS)  # those beside good weights


@pytest.mark.parametrize("suffix", (".ckpt", ".safetensors"))
def test_damaged_checkpoints_of_ours(suffix, tmp_path):
    convert(FIXTURES / "half.pth", tmp_path / f"good{suffix}", Options())
    data = (tmp_path / f"good{suffix}").read_bytes()
    if suffix == ".ckpt":
        marker = data.rfind(b"crc_num")
        assert data[marker + 7 :] == zlib.crc32(data[:marker]).to_bytes(10, "big")
    bad, converted = problems(list(ours(data, suffix)), tmp_path, "out.pth")
    assert not bad, "\n".join(bad)
    assert converted < 20


def test_the_command_prints_one_line_and_lists_ignored_names(command, tmp_path):
    attack = b"cos\nsystem\n(" + text("touch PWNED") + b"tR"
    (tmp_path / "a.pth").write_bytes(archive(b"\x80\x02}" + text("model") + attack + b"s."))
    done = command("tools/convert_torch_ckpt.py", "--input", "a.pth", "--output", "a.ckpt", status=2)
    assert done.stderr.splitlines()[-1].startswith("error: a.pth: does not contain a plain dictionary of weights")
    (tmp_path / "b.pth").write_bytes(beside_weights(attack))
    done = command("tools/convert_torch_ckpt.py", "--input", "b.pth", "--output", "b.ckpt")
    assert "ignored    os.system: named in the file, neither imported nor called" in done.stdout
    bomb = next(case for case in machines() if case.name == "pickle: hash of an endless tuple")
    (tmp_path / "c.pth").write_bytes(bomb.data)
    done = command("tools/convert_torch_ckpt.py", "--input", "c.pth", "--output", "c.ckpt", status=2)
    assert done.stderr.splitlines()[-1] == "error: c.pth: a tuple is the key of a dictionary, which is not supported"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.ckpt", "b.pth", "c.pth"]
