"""The graphs kept across starts: reused by the same run, and by no other."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import pytest
from support.small_run import CONFIG, write_images

from msg_ms.config import load_config
from msg_ms.engine import compile_cache
from msg_ms.engine.compile_cache import CompileCache, build_cache
from msg_ms.engine.ranks import SINGLE_PROCESS, Ranks
from msg_ms.errors import UserError
from msg_ms.ops import backend


def test_a_second_start_reuses_both_graphs_and_computes_the_same(tmp_path, command):
    write_images(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    flags = ("--cfg", "small.yaml", "--data-path", "data", "--opts", "COMPILE_CACHE", "cache", "OUTPUT")
    found = []
    for output in ("one", "two"):
        done = command("train.py", *flags, output)
        lines = (tmp_path / output / "small" / "default" / "metrics.jsonl").read_text("utf-8").splitlines()
        found.append([{k: v for k, v in json.loads(line).items() if "loss" in k} for line in lines])
        graphs = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.mindir")}
        if output == "one":
            first = graphs
            assert len(first) == 2  # training step and evaluation
    assert found[0] == found[1] and found[0]
    assert graphs == first and done.stderr.count("Use the compilation cache") == 2
    assert not list((tmp_path / "cache").glob(".partial*"))


@pytest.fixture
def key(tmp_path):
    return lambda *facts, graphs="step (2, 3)": CompileCache(tmp_path / "cache", *facts).key(graphs)


def test_what_a_graph_follows_from_is_in_its_key(key, tmp_path, monkeypatch):
    keys = [key("a"), key("b"), key("a", graphs="step (4, 3)")]
    monkeypatch.setattr(ms, "__version__", "2.99.0")
    keys.append(key("a"))
    monkeypatch.undo()
    monkeypatch.setattr(backend, "_chosen", "composed")
    keys.append(key("a"))
    monkeypatch.undo()
    package = tmp_path / "package"
    for path in ("a.py", "ops/csrc/k.cc"):
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_text("1", encoding="utf-8")
    monkeypatch.setattr(compile_cache, "PACKAGE", package)
    keys.append(key("a"))
    for path in ("a.py", "ops/csrc/k.cc"):
        (package / path).write_text("2", encoding="utf-8")
        keys.append(key("a"))
    assert len(set(keys)) == len(keys)
    assert key("a") == keys[-1]


def test_configuration_and_rank_are_facts_and_paths_are_not(tmp_path):
    config = replace(load_config(None), compile_cache=str(tmp_path / "cache"))

    def facts(config, ranks=SINGLE_PROCESS):
        return build_cache(config, ranks).facts

    assert build_cache(load_config(None), SINGLE_PROCESS) is None
    base = facts(config)
    assert facts(replace(config, output="elsewhere")) == base
    assert facts(replace(config, train=replace(config.train, clip_grad=1.0))) != base
    assert facts(config, Ranks(1, 2)) != base


@pytest.mark.parametrize("what", ("root", "target", "file"))
def test_a_cache_that_others_can_write_is_not_used(what, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(compile_cache, "_used", False)
    monkeypatch.delenv("MS_COMPILER_CACHE_ENABLE", raising=False)
    cache = CompileCache(tmp_path / "cache")
    target = cache.folder / cache.key("step")
    if what != "root":
        target.mkdir()
        (target / "graph").write_text("", encoding="utf-8")
    changed = {"root": cache.folder, "target": target, "file": target / "graph"}[what]
    changed.chmod(0o777)
    with caplog.at_level("WARNING", "msg_ms"), cache.use("step"):
        assert "MS_COMPILER_CACHE_ENABLE" not in os.environ
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"COMPILE_CACHE={cache.folder} is not used: {changed} is writable by others"
    changed.chmod(0o755)
    with cache.use("step"):
        assert os.environ["MS_COMPILER_CACHE_ENABLE"] == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="running as another user needs root")
def test_a_cache_that_this_user_cannot_write_is_not_used():
    code = "import os, sys, msg_ms; from pathlib import Path; from msg_ms.engine.compile_cache import CompileCache; "
    code += "os.setuid(12345); cache = CompileCache(Path('/usr')); cache.use('step').__enter__()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and "COMPILE_CACHE=/usr is not used: it can't be written" in done.stderr, done.stderr


def test_a_folder_that_cannot_be_written_is_a_users_mistake(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"COMPILE_CACHE=.*file/cache: can't be written"):
        CompileCache(Path(tmp_path / "file" / "cache"))
