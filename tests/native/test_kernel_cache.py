"""Who may have written the kernels that a process loads, and folders that can't be written, executed or found."""

import logging
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import ROOT
from support.native import kernel_library

from msg_ms import UserError
from msg_ms.commands.doctor import kernels
from msg_ms.native import build
from msg_ms.native.build import cache_folder, loadable_library
from msg_ms.ops.backend import LIBRARY, SOURCES

OTHER_USER = 12345
PLANTED = "#include <cstdlib>\n__attribute__((constructor)) void run() { std::_Exit(66); }\n"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler whose library holds one line; it appends a line to the returned file for each build."""
    calls, script = tmp_path / "calls", tmp_path / "c++"
    calls.write_text("", encoding="utf-8")
    script.write_text(
        f'#!/bin/sh\nwhile [ "$1" ]; do [ "$1" = -o ] && echo library > "$2" && echo build >> {calls}; shift; done\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return calls


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MSG_MS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "cache"


def builds(calls: Path) -> int:
    return calls.read_text("utf-8").count("build")


@pytest.mark.parametrize("mode", (0o777, 0o1777, 0o702))
def test_a_cache_that_others_can_write_is_not_used(mode, cache, compiler, caplog, tmp_path):
    kernel_library()
    cache.chmod(mode)
    with caplog.at_level(logging.WARNING, "msg_ms"):
        library = kernel_library()
    assert library.parent == tmp_path / "home" / "msg_ms" and builds(compiler) == 2
    (line,) = [record.getMessage() for record in caplog.records]
    reason = f"({cache} is writable by others)"
    assert line == f"others could change the kernels in {cache} {reason}: using {library.parent} instead"
    assert kernel_library() == library and builds(compiler) == 2


def test_a_group_of_several_users_counts_as_others(cache, compiler):
    if os.geteuid() != 0:
        pytest.skip("giving a folder to another group needs root")
    first = kernel_library()
    os.chown(cache, 0, OTHER_USER)
    cache.chmod(0o775)
    assert kernel_library() != first


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user needs root")
@pytest.mark.parametrize("what", ("folder", "parent", "file"))
def test_what_belongs_to_another_user_is_not_used(what, cache, compiler, monkeypatch):
    monkeypatch.setenv("MSG_MS_CACHE", str(cache / "inner"))
    library = kernel_library()
    os.chown({"folder": library.parent, "parent": cache, "file": library}[what], OTHER_USER, OTHER_USER)
    again = kernel_library()
    assert builds(compiler) == 2 and (again.parent == library.parent) == (what == "file")
    assert again.stat().st_uid == 0


def test_a_library_that_others_can_write_is_built_again(cache, compiler):
    library = kernel_library()
    library.chmod(0o666)
    assert kernel_library() == library and builds(compiler) == 2 and library.stat().st_mode & 0o022 == 0
    target = library.replace(cache / "elsewhere.so")
    library.symlink_to(target)
    assert kernel_library() == library and not library.is_symlink() and builds(compiler) == 3


def test_a_planted_library_does_not_run(tmp_path):
    """The reproduction of the report: a world-writable cache with a library named by its own digest."""
    (tmp_path / "plant.cc").write_text(PLANTED, encoding="utf-8")
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    planted = cache / "planted.so"
    subprocess.run(["g++", "-shared", "-fPIC", tmp_path / "plant.cc", "-o", planted], check=True)
    key = build._key(build._compiler(), (*build.FLAGS, "-march=native"), SOURCES)
    planted.rename(cache / f"kernels-{key}-{build._digest(planted)}.so")
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    environment = {**os.environ, "MSG_MS_CACHE": str(cache), "XDG_CACHE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    code = "from msg_ms import ops; print(ops.MatMul().native is not None)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and done.stdout.split()[-1] == "True", done.stderr
    assert f"others could change the kernels in {cache}" in done.stderr


def test_an_open_umask_makes_no_open_cache(cache, compiler, monkeypatch):
    monkeypatch.setenv("MSG_MS_CACHE", str(cache / "a" / "b"))
    previous = os.umask(0)
    try:
        library = kernel_library()
        assert kernel_library() == library and builds(compiler) == 1
    finally:
        os.umask(previous)


def test_without_any_safe_folder_the_kernels_are_in_a_temporary_one(tmp_path):
    for name in ("cache", "home"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    environment = {**os.environ, "MSG_MS_CACHE": "cache", "XDG_CACHE_HOME": str(tmp_path / "home")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "CXX": str(tmp_path / "c++"), "TMPDIR": str(tmp_path)}
    script = '#!/bin/sh\nwhile [ "$1" ]; do [ "$1" = -o ] && echo > "$2"; shift; done\n'
    (tmp_path / "c++").write_text(script, encoding="utf-8")
    (tmp_path / "c++").chmod(0o755)
    code = "from support.native import kernel_library as k; p = k(); print(p.parent, oct(p.parent.stat().st_mode))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8", check=True
    )
    folder, mode = done.stdout.splitlines()[-1].split()
    assert Path(folder).parent == tmp_path and mode == "0o40700" and not Path(folder).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="running as another user needs root")
def test_a_finished_cache_of_root_is_used_by_a_user_who_cannot_write_there(compiler, monkeypatch):
    with tempfile.TemporaryDirectory() as folder:  # pytest's folders are closed to other users
        Path(folder).chmod(0o755)
        compiler = shutil.copy(os.environ["CXX"], folder)
        monkeypatch.setenv("CXX", str(compiler))
        monkeypatch.setenv("MSG_MS_CACHE", f"{folder}/cache")
        library = kernel_library()
        code = "import os, msg_ms; os.setgid(12345); os.setuid(12345); "
        code += "from support.native import kernel_library; print(kernel_library())"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8")
    assert done.stdout.split()[-1:] == [str(library)], done.stderr


def test_a_finished_cache_needs_no_lock(cache, compiler, monkeypatch):
    library = kernel_library()
    (cache / "lock").unlink()
    (cache / "lock").mkdir()  # can't be opened for writing, even by root
    assert kernel_library() == library and builds(compiler) == 1


def test_a_library_that_cannot_be_loaded_is_a_reason_for_composed_operators(cache, compiler):
    # The compiler's library is no library: dlopen refuses it as it refuses a file on a noexec mount.
    with pytest.raises(UserError, match=r"can't load the kernels \(.*kernels-.*\); set MSG_MS_CACHE to another"):
        loadable_library(LIBRARY, SOURCES)
    assert kernels().startswith("none, MindSpore operators are used instead: can't load the kernels")


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


def maps_code(folder: Path) -> bool:
    """Return whether a file of the folder can be mapped as code; an emulator maps any file."""
    file = folder / "code"
    file.write_bytes(bytes(mmap.PAGESIZE))
    with file.open("rb") as stream:
        try:
            mmap.mmap(stream.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
        except PermissionError:
            return False
    return True


def test_a_cache_on_a_noexec_mount(tmp_path, compiler, monkeypatch):
    script = Path(os.environ["CXX"])  # copies finished kernels instead of compiling them
    monkeypatch.delenv("CXX")
    script.write_text(
        script.read_text("utf-8").replace("echo library >", f"cat {kernel_library()} >"), encoding="utf-8"
    )
    monkeypatch.setenv("CXX", str(script))
    folder = tmp_path / "noexec"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "noexec,mode=755", "tmpfs", str(folder)):
        pytest.skip("mounting needs root")
    try:
        if maps_code(folder):
            pytest.skip("this system maps code from a noexec mount, as an emulator does")
        code = "from msg_ms import ops; print(ops.MatMul().native); from msg_ms.commands.doctor import kernels; "
        code += "print(kernels())"
        environment = {**os.environ, "MSG_MS_CACHE": str(folder), "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2] == "None" and "can't load the kernels" in done.stdout.splitlines()[-1]
    assert done.stderr.count("using composed operators, slower than native kernels: can't load the kernels") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="running as a user without an entry in passwd needs root")
def test_a_user_without_a_home(monkeypatch):
    for name in ("HOME", "MSG_MS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    code = "import os, msg_ms; os.setuid(12345); from msg_ms import ops; print(ops.MatMul().native); "
    code += "from msg_ms.commands.doctor import kernels; print(kernels())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and done.stdout.splitlines()[-2] == "None", done.stderr
    reason = "this user has no home folder for the kernels (HOME is not set); set MSG_MS_CACHE to a folder"
    assert done.stdout.splitlines()[-1].endswith(reason) and done.stderr.count(reason) == 1


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MSG_MS_CACHE", "~/kernels")
    assert cache_folder() == tmp_path / "kernels"
