"""The nodes of a job meet before it starts: wrong variables are named on all nodes, and addresses are of both kinds."""

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support.faults import run_fault
from support.script import free_port

from msg_ms.errors import UserError
from msg_ms.launch.address import is_own, reserve_port, resolve
from msg_ms.launch.job import Job
from msg_ms.launch.meeting import Card, meet, visit


@pytest.fixture
def job(tmp_path):
    return Job(
        script=Path("train.py"), flags=[], devices=2, target="CPU", nodes=3, node=0, numbered=True, address="127.0.0.1",
        port=free_port(), log_dir=tmp_path, cluster_timeout=5, stop_timeout=1, rank_table="",
    )  # fmt: skip


def together(*jobs):
    """The outcome of each node's meeting, the first node's in the first place: an address, or the error's text."""

    def guest(job):
        # On one machine all nodes have the first one's address, which meet() refuses.
        return visit(job, Card(str(job.node), "other", job.nodes, job.node, job.devices, job.numbered), 20)

    def outcome(function, job):
        try:
            return function(job)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        first, *others = jobs
        guests = [pool.submit(outcome, guest, job) for job in others]  # before the first node listens
        time.sleep(0.3)
        host = pool.submit(outcome, lambda job: meet(job).master, first)
        return [host.result(), *(guest.result() for guest in guests)]


@pytest.mark.parametrize("address", ("127.0.0.1", "::1", "[::1]", "localhost"))
def test_nodes_meet_under_addresses_of_both_kinds(job, address):
    if not is_own(address.strip("[]")) and address != "localhost":
        pytest.skip("no IPv6 on this machine")
    first = replace(job, address=address)
    outcomes = together(first, replace(first, node=1), replace(first, node=2))
    assert outcomes == [outcomes[0]] * 3 and outcomes[0] in ("127.0.0.1", "::1")
    # MindSpore's scheduler can use the port at once: no connection was closed on this side.
    with socket.socket(socket.AF_INET6 if ":" in outcomes[0] else socket.AF_INET) as scheduler:
        scheduler.bind((outcomes[0], job.port))


@pytest.mark.parametrize(
    ("second", "third", "message"),
    [
        (
            {"devices": 4},
            {},
            "DEVICE_NUM differs between the nodes: 2 on {host} (NODE_RANK=0), 4 on other (NODE",
        ),
        ({"nodes": 2}, {}, "NNODES differs between the nodes: 3 on {host} (NODE_RANK=0), 2 on other (NODE_RANK=1)"),
        ({}, {"node": 1}, "two nodes have the same NODE_RANK: other (NODE_RANK=1) and other (NODE_RANK=1); give each"),
        (
            {"node": 0, "numbered": False},
            {},
            "two nodes have the same NODE_RANK: {host} (NODE_RANK=0) and other (NODE_RANK=0, which is not set); give",
        ),
    ],
)
def test_every_node_names_a_wrong_variable(job, second, third, message):
    first = replace(job, node=0)
    outcomes = together(first, replace(first, **{"node": 1, **second}), replace(first, **{"node": 2, **third}))
    assert len(set(outcomes)) == 1 and outcomes[0].startswith(message.format(host=socket.gethostname()))
    assert "\n" not in outcomes[0]


def test_missing_nodes_are_counted(job):
    first = replace(job, cluster_timeout=1)
    outcomes = together(first, replace(first, node=2))
    assert outcomes[0] == outcomes[1] and outcomes[0].startswith(
        "1 of 3 nodes did not come within 1 seconds (NODE_RANK=1): check that each node runs the same command"
    )
    with pytest.raises(UserError, match=r"^the first node did not answer at MASTER_ADDR=127.0.0.1, MASTER_PORT=\d+ "):
        visit(first, Card("k", "h", 3, 1, 2, True), 1)


def test_other_programs_and_lost_nodes_do_not_count(job):
    first = replace(job, nodes=2)
    with ThreadPoolExecutor() as pool:
        host = pool.submit(meet, first)
        lines = [b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"key": 1}\n', b"\0" * 9000, b""]
        lines.append(json.dumps({"key": "lost", "host": "h", "nodes": 2, "node": 1, "devices": 2, "numbered": True}))
        for line in lines:
            while True:
                try:
                    connection = socket.create_connection(("127.0.0.1", job.port), timeout=1)
                    break
                except OSError:
                    time.sleep(0.05)
            with connection:
                connection.sendall(line if isinstance(line, bytes) else line.encode())
        assert visit(first, Card("k", "h", 2, 1, 2, True), 5) == "127.0.0.1"
        assert host.result().master == "127.0.0.1"


def test_a_node_with_the_first_ones_address_is_not_the_first(job):
    with pytest.raises(UserError, match="is an address of this node itself, which has NODE_RANK=1"):
        meet(replace(job, node=1))


@pytest.mark.parametrize("address", ("node..1", "no-such-host.invalid", "::1::"))
def test_unknown_addresses(job, address):
    with pytest.raises(UserError, match=r"^MASTER_ADDR=.* is not a known address$"):
        resolve(replace(job, address=address))


def test_a_single_node_takes_the_first_address_that_it_has(job):
    single = replace(job, nodes=1, address="localhost")
    with reserve_port(single):
        assert meet(single).master in ("127.0.0.1", "::1")
        (taken,) = {meet(single).master}
        with socket.create_server((taken, job.port), family=socket.AF_INET6 if ":" in taken else socket.AF_INET):
            others = [address for address in resolve(single) if address != taken]
            if others:
                assert meet(single).master == others[0]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.parametrize("fault", ("other_count", "rank_forgotten"))
def test_both_nodes_name_the_cause_within_a_minute(fault, tmp_path):
    row = run_fault(fault, tmp_path)
    first, second = row.reads.split(" / ")
    assert row.status == 2 and row.left == 0 and row.seconds < 60 and first == second
    assert first.startswith(
        {"other_count": "error: DEVICE_NUM differs", "rank_forgotten": "error: two nodes have the same NODE_RANK"}[
            fault
        ]
    )
