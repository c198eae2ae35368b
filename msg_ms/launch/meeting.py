"""The nodes of a job meet before its processes start, so that a wrong variable on one node is an error on all.

The first node listens on the job's port. Every other node connects, and sends a line about itself. When all are there,
the first node answers with the difference between them, if there is one. Then the port is free for MindSpore's
scheduler.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import UserError
from .address import is_own, listen, plain, resolve, usable_address
from .job import Job
from .logs import say

REPLY = 5.0  # seconds for a node to send its line, and for the first node to greet it
LINGER = 20.0  # seconds for which the first node reports a difference to nodes that come later
PATIENCE = 5.0  # seconds before a line says that nodes are missing
UNREACHED = 45.0  # seconds for a first node to be reached under an address that is not its own
LONGEST = 4096  # bytes of a line


@dataclass(frozen=True)
class Card:
    """A node's line about itself.

    Attributes:
        key: A random name of the launcher.
        host: Name of the machine.
        nodes: Its NNODES.
        node: Its NODE_RANK.
        devices: Its DEVICE_NUM.
        numbered: Whether NODE_RANK was set.
    """

    key: str
    host: str
    nodes: int
    node: int
    devices: int
    numbered: bool

    def __str__(self) -> str:
        return f"{self.host} (NODE_RANK={self.node}{'' if self.numbered else ', which is not set'})"


class Link:
    """A connection that carries lines of JSON."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self.data = b""

    def send(self, message: dict[str, Any]) -> None:
        """Send a line; raises OSError if the other side has gone."""
        self.connection.settimeout(REPLY)
        self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """Return the next line, None if there is none within ``seconds``.

        Raises:
            OSError: The other side has gone, or sent something else.
        """
        self.connection.settimeout(seconds)
        try:
            while b"\n" not in self.data:
                received = self.connection.recv(LONGEST)
                self.data += received
                if not received or len(self.data) > LONGEST:
                    raise ConnectionError
        except TimeoutError:
            return None
        line, _, self.data = self.data.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            raise ConnectionError from None
        if not isinstance(message, dict):
            raise ConnectionError
        return message


class RefusalError(UserError):
    """The first node's error."""


def meet(job: Job, check: Callable[[], None] = lambda: None) -> Job:
    """Wait for the job's nodes and compare their variables.

    Args:
        job: The job, as this node sees it.
        check: Is called several times per second; may raise to end the waiting.

    Returns:
        The job with ``master``, the numeric address of its scheduler.

    Raises:
        UserError: On every node that could be reached, if their variables differ; or if nodes do not come in time.
    """
    addresses = resolve(job)
    if job.nodes == 1:
        return replace(job, master=usable_address(job, addresses))
    card = Card(uuid.uuid4().hex, socket.gethostname(), job.nodes, job.node, job.devices, job.numbered)
    if job.node == 0:
        return replace(job, master=Host(job, card, addresses).gather(check))
    if any(map(is_own, addresses)):
        raise UserError(
            f"MASTER_ADDR={job.address} is an address of this node itself, which has NODE_RANK={job.node}: use the "
            "first node's address"
        )
    return replace(job, master=visit(job, card, job.cluster_timeout, check))


def disagreement(cards: Sequence[Card]) -> str:
    """Return how nodes differ that must not differ, as a line; empty if they don't."""
    for name, values in (("NNODES", [card.nodes for card in cards]), ("DEVICE_NUM", [card.devices for card in cards])):
        examples: dict[int, Card] = {}
        for value, card in zip(values, cards, strict=True):
            examples.setdefault(value, card)
        if len(examples) > 1:
            parts = ", ".join(f"{value} on {card}" for value, card in examples.items())
            return f"{name} differs between the nodes: {parts}; it must be the same on all of them"
    seen: dict[int, Card] = {}
    for card in cards:
        if card.node in seen:
            return (
                f"two nodes have the same NODE_RANK: {seen[card.node]} and {card}; give each node its own NODE_RANK, "
                f"from 0 to {card.nodes - 1}"
            )
        seen[card.node] = card
    return ""


class Host:
    """The first node, which the others visit.

    Args:
        job: The job, as this node sees it.
        card: This node's line.
        addresses: Numeric addresses of MASTER_ADDR.
    """

    def __init__(self, job: Job, card: Card, addresses: Sequence[str]):
        self.job, self.card = job, card
        self.guests: list[tuple[Card, Link]] = []
        # False for an address that a service forwards to this node, and for another node's.
        self.reached = any(map(is_own, addresses))
        self.refusal: RefusalError | None = None

    def gather(self, check: Callable[[], None]) -> str:
        """Wait for the other nodes; return the address of this node that they reached."""
        with listen(self.job) as server:
            server.settimeout(0.2)
            if not self.reached:
                threading.Thread(target=self._reach_this_node, daemon=True).start()
            try:
                self._wait(server, check)
                error = disagreement(self._cards()) or self._absence()
            except UserError as problem:
                error = str(problem)
            seen = [plain(link.connection.getsockname()[0]) for _, link in self.guests]
            self._answer(error)
        if error:
            raise UserError(error)
        return seen[0]

    def _wait(self, server: socket.socket, check: Callable[[], None]) -> None:
        """Receive nodes until all are there, or the time is over."""
        begin = time.monotonic()
        end, reported = begin + self.job.cluster_timeout, False
        while len(self.guests) + 1 < self.job.nodes and time.monotonic() < end:
            check()
            if self.refusal is not None:
                raise self.refusal
            self._receive(server)
            now = time.monotonic()
            if disagreement(self._cards()):
                end = min(end, now + LINGER)
            elif not self.reached and now > begin + UNREACHED:
                raise UserError(
                    f"MASTER_ADDR={self.job.address} does not lead to {self.card}: use the first node's own address, "
                    "and give each node its own NODE_RANK"
                )
            elif now > begin + PATIENCE and not reported:
                reported = True
                say(f"waiting for {self._absent()} of {self.job.nodes} nodes at MASTER_PORT={self.job.port}")

    def _receive(self, server: socket.socket) -> None:
        self.guests = [guest for guest in self.guests if _is_open(guest[1].connection)]
        try:
            link = Link(server.accept()[0])
        except TimeoutError:
            return
        try:
            card = Card(**(link.receive(REPLY) or {}))
            link.send({"welcome": self.card.host})
            if card.key == self.card.key:
                link.send({"agreed": True})
        except (OSError, TypeError):  # another program, such as one that looks for open ports
            link.connection.close()
            return
        self.reached = True
        if card.key != self.card.key:
            self.guests.append((card, link))
            self.guests.sort(key=lambda guest: guest[0].node)

    def _reach_this_node(self) -> None:
        """Find out whether the address leads here, or to another launcher that calls itself the first node."""
        while not self.reached:
            try:
                visit(self.job, self.card, 2, quiet=True)
            except RefusalError as error:
                self.refusal = error
                return
            except UserError:
                time.sleep(1)

    def _cards(self) -> list[Card]:
        return [self.card, *(card for card, _ in self.guests)]

    def _absent(self) -> int:
        return self.job.nodes - 1 - len(self.guests)

    def _absence(self) -> str:
        if not self._absent():
            return ""
        ranks = sorted(set(range(self.job.nodes)) - {card.node for card in self._cards()})
        return (
            f"{self._absent()} of {self.job.nodes} nodes did not come within {self.job.cluster_timeout} seconds "
            f"(NODE_RANK={','.join(map(str, ranks))}): check that each node runs the same command with its own "
            f"NODE_RANK and can reach MASTER_ADDR={self.job.address}, MASTER_PORT={self.job.port} "
            "(CLUSTER_TIMEOUT sets the waiting time)"
        )

    def _answer(self, error: str) -> None:
        """Answer all, and let them close first: a port whose connections are closed here stays in use for a minute."""
        for _, link in self.guests:
            try:
                link.send({"error": error} if error else {"agreed": True})
                link.receive(2)
            except OSError:
                pass
            link.connection.close()


def _is_open(connection: socket.socket) -> bool:
    """Return whether a node that waits for its answer is still there."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def visit(job: Job, card: Card, seconds: float, check: Callable[[], None] = lambda: None, quiet: bool = False) -> str:
    """Introduce a node to the first one, and wait for its answer.

    Args:
        job: The job, as the node sees it.
        card: The node's line.
        seconds: Time for the first node to appear.
        check: Is called several times per second; may raise to end the waiting.
        quiet: Whether to print nothing.

    Returns:
        The numeric address under which the first node was reached.

    Raises:
        RefusalError: If the first node reports an error.
        UserError: If it does not answer in time.
    """
    begin = time.monotonic()
    while time.monotonic() < begin + seconds:
        check()
        try:
            with socket.create_connection((job.address.strip("[]"), job.port), timeout=2) as connection:
                answer = _introduce(Link(connection), card, begin + seconds + LINGER, check)
                reached = plain(connection.getpeername()[0])
        except OSError:
            answer = {}
        if "error" in answer:
            raise RefusalError(str(answer["error"]))
        if answer:
            return reached
        if time.monotonic() > begin + PATIENCE and not quiet:
            quiet = True
            say(f"waiting for the first node at MASTER_ADDR={job.address}, MASTER_PORT={job.port}")
        time.sleep(0.2)
    raise UserError(
        f"the first node did not answer at MASTER_ADDR={job.address}, MASTER_PORT={job.port} within {seconds} seconds: "
        "check that it runs the same command with NODE_RANK=0, and the network (CLUSTER_TIMEOUT sets the waiting time)"
    )


def _introduce(link: Link, card: Card, end: float, check: Callable[[], None]) -> dict[str, Any]:
    """Return the first node's answer, empty if there is none; raises OSError if the other side is no launcher."""
    link.send(asdict(card))
    if "welcome" not in (link.receive(REPLY) or {}):  # such as the scheduler of an attempt that ends
        return {}
    while time.monotonic() < end:
        check()
        answer = link.receive(0.2)
        if answer is not None:
            return answer
    return {}
