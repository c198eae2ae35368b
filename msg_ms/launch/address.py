"""The first node's address and port: resolve them, reserve the port, and listen on it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from ..errors import UserError
from .job import Job


def resolve(job: Job) -> list[str]:
    """Return the addresses of ``MASTER_ADDR``, both IPv4 and IPv6, in the order of the system's preference.

    Raises:
        UserError: If the name is unknown, or the port is above 65535.
    """
    if job.port > 65535:
        raise UserError(f"MASTER_PORT={job.port}: must be an integer from 1 to 65535")
    try:
        # Brackets around an IPv6 address are for URLs; msrun accepts them too.
        found = socket.getaddrinfo(job.address.strip("[]"), job.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: an empty label, as in "node..1"
        raise UserError(f"MASTER_ADDR={job.address} is not a known address") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def family(address: str) -> socket.AddressFamily:
    """Return the family of a numeric address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def is_own(address: str) -> bool:
    """Return whether a numeric address belongs to this node."""
    try:
        with socket.socket(family(address)) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def reserve_port(job: Job) -> Iterator[None]:
    """On the first node, keep the job's port from other launchers on this machine.

    Two launchers that start together would both find it free, and the second job's processes would join the first job.

    Raises:
        UserError: If the port can't be used.
    """
    addresses = resolve(job)
    if job.node != 0:
        yield
        return
    with socket.socket(socket.AF_UNIX) as reservation:
        try:
            # A name without a file, in the network namespace that the port belongs to.
            reservation.bind(f"\0msg_ms launcher {job.port}")
        except OSError as error:
            raise unusable(job, error) from None
        if job.nodes == 1:
            usable_address(job, addresses)
        yield


def usable_address(job: Job, addresses: list[str]) -> str:
    """Return the first of the addresses that the scheduler of a single node can use.

    Raises:
        UserError: If there is none.
    """
    first: OSError | None = None
    for address in addresses:
        try:
            with socket.socket(family(address)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, job.port))
            return address
        except OSError as error:
            first = first or error
    raise unusable(job, first or OSError("no address"))


def listen(job: Job) -> socket.socket:
    """Listen on the job's port, on all addresses of this node.

    Raises:
        UserError: If the port can't be used.
    """
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", job.port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=128
        )
    except OSError as error:
        raise unusable(job, error) from None


def plain(address: str) -> str:
    """Return a numeric address without the prefix that IPv4 has on a socket for both families."""
    return address.removeprefix("::ffff:") if "." in address else address


def unusable(job: Job, error: OSError) -> UserError:
    """Return the error for a port that can't be used on this node."""
    return UserError(
        f"MASTER_ADDR={job.address}, MASTER_PORT={job.port} can't be used here ({error.strerror}): use the first "
        "node's own address, or another port"
    )
