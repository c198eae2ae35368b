"""The log folder, the port and the folders of a job: nothing foreign is removed, and nothing is shared by two jobs."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from support.script import free_port

from msg_ms.errors import UserError
from msg_ms.launch.__main__ import newest_checkpoint
from msg_ms.launch.address import reserve_port
from msg_ms.launch.job import Job, check_readable
from msg_ms.launch.logs import open_logs, remove_logs


@pytest.fixture
def job(tmp_path):
    return Job(
        script=Path("train.py"), flags=["--cfg", "c.yaml", "--output", "out"], devices=2, target="CPU", nodes=1, node=0,
        numbered=False, address="127.0.0.1", port=8118, log_dir=tmp_path / "logs", cluster_timeout=1, stop_timeout=1,
        rank_table="",
    )  # fmt: skip


def write(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name, encoding="utf-8")


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".launch.lock")


def test_only_the_launchers_own_logs_are_removed(job):
    foreign = ["my.log", "slurm-123.log", "worker_a.log", "worker_1.log.bak", "xscheduler.log"]
    with open_logs(job):
        write(job.log_dir, "worker_0.log", "worker_7.log", "scheduler.log", "launch.log", *foreign)
    with open_logs(job):
        assert names(job.log_dir) == sorted(foreign)
        assert all((job.log_dir / name).read_text("utf-8") == name for name in foreign)


def test_the_report_of_an_earlier_stop_does_not_count(job):
    with open_logs(job):
        job.stop_file.touch()
        replace(job, nodes=2, node=1).stop_file.touch()
        remove_logs(job)
        assert names(job.log_dir) == [".stopped_node1"]


def test_logs_of_another_program_are_kept_under_another_name(job, capsys):
    write(job.log_dir, "worker_0.log", "worker_0.log.1", "scheduler.log")
    with open_logs(job):
        assert names(job.log_dir) == ["scheduler.log.1", "worker_0.log.1", "worker_0.log.2"]
    assert (job.log_dir / "worker_0.log.1").read_text("utf-8") == "worker_0.log.1"
    assert (job.log_dir / "worker_0.log.2").read_text("utf-8") == "worker_0.log"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("that this launcher has not written are kept as scheduler.log.1, worker_0.log.2")


@pytest.mark.parametrize("change", ({"port": 8119}, {"address": "10.0.0.1"}, {}, {"port": 8119, "nodes": 2, "node": 1}))
def test_a_second_job_is_refused(job, change):
    with open_logs(job):
        write(job.log_dir, "worker_0.log")
        pattern = r"^LOG_DIR=.*logs is in use by another job \(process \d+ on .*, MASTER_PORT=8118\): set LOG_DIR to"
        with pytest.raises(UserError, match=pattern), open_logs(replace(job, **change)):
            pass
        assert names(job.log_dir) == ["worker_0.log"]
    with open_logs(replace(job, **change)):
        pass


def test_nodes_of_one_job_share_a_folder(job):
    first, second = replace(job, nodes=2), replace(job, nodes=2, node=1)
    with open_logs(first):
        write(job.log_dir, "launch.log", "scheduler.log", "worker_0.log", "worker_2.log", "launch_node1.log")
        with open_logs(second):
            assert names(job.log_dir) == ["launch.log", "scheduler.log", "worker_0.log"]
            remove_logs(first)
            assert names(job.log_dir) == []
    assert first.launch_log.name == "launch.log" and second.launch_log.name == "launch_node1.log"


def test_a_folder_that_all_can_write_is_not_used(job, capsys):
    job.log_dir.mkdir()
    job.log_dir.chmod(0o777)
    with open_logs(job) as moved:
        assert moved.log_dir.stat().st_mode & 0o077 == 0 and not names(job.log_dir)
    assert capsys.readouterr().out == (
        f"LOG_DIR={job.log_dir} is not safe ({job.log_dir} is writable by others): the logs are in {moved.log_dir}\n"
    )
    (moved.log_dir / ".launch.lock").unlink()
    moved.log_dir.rmdir()


@pytest.mark.parametrize("name", ("file/logs", "file"))
def test_a_folder_that_cannot_be_written(job, name, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    pattern = r"^LOG_DIR=.*file.* can't be written \(.+\)$"
    with pytest.raises(UserError, match=pattern), open_logs(replace(job, log_dir=tmp_path / name)):
        pass


def test_what_fails_later_is_not_blamed_on_the_folder(job):
    with pytest.raises(FileNotFoundError), open_logs(job):
        raise FileNotFoundError


def test_two_launchers_cannot_choose_one_port(job):
    job = replace(job, port=free_port())
    with reserve_port(job):
        pattern = rf"MASTER_PORT={job.port} can't be used here \(Address already in use\)"
        with pytest.raises(UserError, match=pattern), reserve_port(job):
            pass
        with reserve_port(replace(job, node=1, nodes=2)):  # another node doesn't bind it
            pass
    with reserve_port(job):
        pass


def test_a_port_above_the_last(job):
    pattern = "MASTER_PORT=70000: must be an integer from 1 to 65535"
    with pytest.raises(UserError, match=pattern), reserve_port(replace(job, port=70000)):
        pass


def test_a_copy_of_a_checkpoint_is_no_progress(job, tmp_path):
    (tmp_path / "c.yaml").write_text("MODEL: {NAME: small}\n", encoding="utf-8")
    run = tmp_path / "out" / "small" / "default"
    run.mkdir(parents=True)
    assert newest_checkpoint(job) == ""
    for name in ("ckpt_00000004.ckpt", "ckpt_00000004_good.ckpt", "ckpt_99.ckpt", "ckpt_100000000.ckpt"):
        (run / name).write_text("", encoding="utf-8")
    assert newest_checkpoint(job) == "ckpt_100000000.ckpt"


@pytest.mark.skipif(os.geteuid() != 0, reason="running as another user needs root")
def test_unreadable_data_is_one_line(tmp_path):
    """As a user who may not read it; root always may."""
    tmp_path.chmod(0o700)
    code = "import os, sys; from msg_ms.launch.job import check_readable; from msg_ms.cli import run_command_line; "
    code += "os.setuid(12345); run_command_line(lambda: check_readable(*sys.argv[1:3], True))"
    for path in (tmp_path, tmp_path / "data"):
        line = [sys.executable, "-c", code, "DATA_PATH", str(path)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, encoding="utf-8")
        assert done.returncode == 2 and done.stderr == f"error: DATA_PATH={path} can't be read (Permission denied)\n"


def test_a_missing_table(tmp_path):
    with pytest.raises(UserError, match="RANK_TABLE_FILE=none does not exist"):
        check_readable("RANK_TABLE_FILE", "none", folder=False)
    with pytest.raises(UserError, match=r"RANK_TABLE_FILE=.* is not a file"):
        check_readable("RANK_TABLE_FILE", str(tmp_path), folder=False)


@pytest.mark.parametrize("stream", (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full"))
def test_closed_streams_do_not_end_the_launcher(stream):
    code = "from msg_ms.launch.logs import say; say('a'); say('b', error=True); say('c'); import os; os._exit(7)"
    done = subprocess.run(["bash", "-c", f'"$0" -c "{code}" {stream}', sys.executable], cwd=ROOT, capture_output=True)
    assert done.returncode == 7
