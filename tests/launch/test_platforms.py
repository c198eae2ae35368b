"""The variables of each platform, as it sets them, and the variables of the user before them."""

import subprocess
import sys

import pytest
from conftest import ROOT
from support.small_run import CONFIG, write_images

from msg_ms.errors import UserError
from msg_ms.launch.job import read_job
from msg_ms.launch.platforms import PLATFORMS, PORT, Place, first_host, read_place

SLURM = {  # srun -N 2 of Slurm 22.05, on the second node
    "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_STEPID": "0", "SLURM_NODEID": "1", "SLURM_PROCID": "1",
    "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_JOB_NODELIST": "node[1-4]", "SLURM_NNODES": "4",
}  # fmt: skip
MINDCLUSTER = {  # the second Worker of a job with 8 NPUs per pod, whose Scheduler has NPUs too
    "MS_SERVER_NUM": "0", "MS_WORKER_NUM": "24", "MS_LOCAL_WORKER": "8", "MS_SCHED_HOST": "10.96.4.2",
    "MS_SCHED_PORT": "2222", "MS_ROLE": "MS_WORKER", "MS_NODE_RANK": "2", "NPU_POD": "true",
}  # fmt: skip
MODELARTS = {  # the second of two nodes; ModelArts is built on Volcano
    "MA_NUM_HOSTS": "2", "MA_NUM_GPUS": "8", "VC_WORKER_NUM": "2", "VC_TASK_INDEX": "1", "MA_TASK_NAME": "worker",
    "VC_WORKER_HOSTS": "modelarts-job-a1-worker-0.modelarts-job-a1,modelarts-job-a1-worker-1.modelarts-job-a1",
    "RANK_TABLE_FILE": "/user/config", "RANK_ID": "8", "RANK_SIZE": "16",
}  # fmt: skip
VOLCANO = {  # plugins env and svc, a task "trainer" with three replicas
    "VC_TASK_INDEX": "2", "VK_TASK_INDEX": "2", "VC_TRAINER_NUM": "3",
    "VC_TRAINER_HOSTS": "msg-trainer-0.msg,msg-trainer-1.msg,msg-trainer-2.msg",
}  # fmt: skip
KUBERNETES = {"JOB_COMPLETION_INDEX": "3", "NNODES": "4", "MASTER_ADDR": "msg-0.msg"}


@pytest.fixture
def environment(monkeypatch):
    """A function that sets variables, in an environment without any platform's."""
    names = {"NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "LOG_DIR"}
    for example in (SLURM, MINDCLUSTER, MODELARTS, VOLCANO, KUBERNETES):
        names |= example.keys()
    for name in names:
        monkeypatch.delenv(name, raising=False)

    def change(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return change


@pytest.mark.parametrize(
    ("variables", "nodes", "node", "address", "port"),
    [
        (SLURM, 2, 1, "node1", 15000 + 47110 % 10000),
        (MINDCLUSTER, 3, 2, "10.96.4.2", 2222),
        (MODELARTS, 2, 1, "modelarts-job-a1-worker-0.modelarts-job-a1", PORT),
        (VOLCANO, 3, 2, "msg-trainer-0.msg", PORT),
        (KUBERNETES, 4, 3, "msg-0.msg", PORT),
    ],
    ids=[platform.name for platform in PLATFORMS],
)
def test_a_platform_gives_the_place(variables, nodes, node, address, port, environment):
    environment(**variables)
    place = read_place(8)
    assert (place.nodes, place.node, place.address, place.port) == (nodes, node, address, port) and place.numbered
    # The user's variables have priority, each for itself; a blank one is none.
    environment(MASTER_ADDR="10.0.0.9", NODE_RANK=" ")
    assert read_place(8) == Place(nodes, node, True, "10.0.0.9", port, place.foreign)
    environment(NNODES="5", NODE_RANK="4", MASTER_PORT="999")
    assert read_place(8) == Place(5, 4, True, "10.0.0.9", 999, place.foreign)
    environment(NNODES="1", NODE_RANK="", MASTER_ADDR="", MASTER_PORT="")
    assert read_place(8) == Place(1, 0, False, "127.0.0.1", port, place.foreign)


def test_without_a_platform_nothing_is_read(environment):
    assert read_place(8) == Place()
    # A batch script, and a shell of salloc: no step.
    environment(**{name: value for name, value in SLURM.items() if not name.startswith("SLURM_STEP")})
    environment(WORLD_SIZE="2", RANK="1", JOB_COMPLETION_INDEX="1")
    assert read_place(8) == Place()


@pytest.mark.parametrize(
    ("variables", "changed", "message"),
    [
        (SLURM, {"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "0"}, "Slurm has started 16 tasks on 2 nodes, but"),
        (SLURM, {"SLURM_NODEID": "2"}, "SLURM_NODEID=2: must be less than NNODES=2"),
        (SLURM, {"SLURM_STEP_NODELIST": "node["}, r"the list of hosts node\[ can't be read: set MASTER_ADDR"),
        (SLURM, {"SLURM_STEP_NUM_NODES": ""}, "SLURM_STEP_NUM_NODES is missing, which Slurm sets: set NNODES yourself"),
        (MINDCLUSTER, {"MS_LOCAL_WORKER": "4"}, "DEVICE_NUM=8: MindCluster has given this pod MS_LOCAL_WORKER=4 dev"),
        (MINDCLUSTER, {"MS_WORKER_NUM": "20"}, "MS_WORKER_NUM=20 is no multiple of MS_LOCAL_WORKER=8"),
        (MINDCLUSTER, {"MS_ROLE": "MS_SCHED", "NPU_POD": "false"}, "this MindCluster pod is a Scheduler without dev"),
        (MODELARTS, {"MA_NUM_GPUS": "4"}, "DEVICE_NUM=8: ModelArts has given this node MA_NUM_GPUS=4 devices"),
        (MODELARTS, {"VC_WORKER_HOSTS": ""}, "VC_WORKER_HOSTS is missing, which ModelArts sets: set MASTER_ADDR"),
        (VOLCANO, {"VC_MASTER_HOSTS": "m"}, r"several tasks \(VC_MASTER_HOSTS, VC_TRAINER_HOSTS\): set NNODES"),
        ({"VC_TASK_INDEX": "0"}, {}, "no VC_<task>_HOSTS, which its plugin svc sets: set NNODES"),
        (KUBERNETES, {"MASTER_ADDR": ""}, "MASTER_ADDR is missing: with NNODES=4 each node needs the first"),
        (KUBERNETES, {"JOB_COMPLETION_INDEX": "x"}, "JOB_COMPLETION_INDEX=x: must be an integer of at least 0"),
    ],
)
def test_an_unsuitable_start_is_one_line(variables, changed, message, environment):
    environment(**{**variables, **changed})
    with pytest.raises(UserError, match=message):
        read_place(8)


def test_one_task_reports_for_all(environment):
    environment(**{**SLURM, "SLURM_STEP_NUM_TASKS": "16"})
    with pytest.raises(SystemExit, match="2"):
        read_place(8)
    environment(NNODES="1")  # 16 runs of their own
    assert read_place(8).nodes == 1


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("node[001-004,7]", "node001"),
        ("gpu[12,15-17]-ib,login", "gpu12-ib"),
        ("rack[2-3]n[08-09]", "rack2n08"),
        ("a.b.svc,c", "a.b.svc"),
    ],
)
def test_the_first_host_of_a_list(hosts, first):
    assert first_host(hosts) == first


def test_variables_of_other_launchers_do_not_reach_the_processes(environment, tmp_path, monkeypatch):
    write_images(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    arguments = ("train.py", "8", "small.yaml", "data", [])
    environment(**MODELARTS, DEVICE_TARGET="")
    job = read_job(*arguments)  # /user/config is no file
    left = MODELARTS.keys() & job.environment("mark").keys()
    assert not job.rank_table and left == MODELARTS.keys() - {"RANK_TABLE_FILE", "RANK_ID", "RANK_SIZE"}
    assert not [option for option in job.command() if "rank_table" in option]


def test_the_command_reports_an_unsuitable_start_in_one_line(environment, tmp_path):
    write_images(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    environment(**SLURM, PYTHON=sys.executable, DEVICE_TARGET="CPU")
    for process, expected in (("0", 1), ("1", 0)):
        environment(SLURM_STEP_NUM_TASKS="4", SLURM_PROCID=process)
        done = subprocess.run(
            ["bash", ROOT / "scripts" / "run_distribute_train.sh", "2", "small.yaml", "data"],
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 2 and done.stderr.count("\n") == expected == done.stderr.count("error: Slurm has")
