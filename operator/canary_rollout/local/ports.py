"""Ports for programs that cannot take one from the kernel themselves."""

import random
import socket

# Below 32768: the kernel gives the ports above to outgoing connections, at random, while a program starts.
LOWEST, HIGHEST = 10_000, 32_000
TRIES = 200

_given: set[int] = set()
# Not the shared generator: two processes that were seeded alike would try the same ports at the same time.
_random = random.SystemRandom()


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on at ``address`` now and that this function has not given before.

    Raises:
        OSError: none was free in :data:`TRIES` tries.
    """
    for _ in range(TRIES):
        port = _random.randint(LOWEST, HIGHEST)
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise OSError(f"no free port between {LOWEST} and {HIGHEST} at {address} in {TRIES} tries")
