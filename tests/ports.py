"""TCP ports for the servers that tests start."""

import os
import random
import socket
from contextlib import ExitStack

_FIRST = 10_000
_EACH = 2_000
"""Below the ports that the kernel gives to those who connect (32768 on), a share a worker."""

_given: set[int] = set()
"""A server is started long after its port was chosen: none is given twice while others are left."""


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 that nothing listens on, each another.

    No connection that somebody opens meanwhile gets one of them for its own end.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw9").removeprefix("gw")) % 10
    first = _FIRST + worker * _EACH
    ports: list[int] = []
    with ExitStack() as stack:
        if len(_given) + count > _EACH // 2:
            _given.clear()
        left = sorted(set(range(first, first + _EACH)) - _given)
        for port in random.sample(left, len(left)):
            if len(ports) == count:
                break
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    _given.update(ports)
    assert len(ports) == count, f"no {count} ports are free from {first} on"
    return ports
