"""Pairs of UDP ports for RTP and RTCP: an even one and the next (RFC 3550 §11)."""

import socket
from contextlib import suppress
from typing import Final

_ATTEMPTS: Final = 32


def bind_port_pair(host: str) -> tuple[socket.socket, socket.socket]:
    """Non-blocking sockets for RTP and RTCP at a local address. Raises OSError if no pair is free."""
    for _ in range(_ATTEMPTS):
        first = _bind(host, 0)
        port = first.getsockname()[1]
        with suppress(OSError):
            second = _bind(host, port + 1 if port % 2 == 0 else port - 1)
            return (first, second) if port % 2 == 0 else (second, first)
        first.close()
    raise OSError("no pair of UDP ports is free")


def _bind(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    bound.setblocking(False)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
