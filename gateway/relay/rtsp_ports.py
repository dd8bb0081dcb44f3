"""The UDP ports of one RTSP viewer.

The sockets are connected: the kernel drops what anybody else sends to them, and nothing can be sent anywhere
but to the address of the RTSP connection, whatever the client asks for.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Self

from streams.port_pair import bind_port_pair

MAX_DATAGRAM_BYTES = 2048
MAX_DATAGRAMS_AT_ONCE = 64
"""Reports that are read from one viewer before others have their turn."""
SEND_BUFFER_BYTES = 1024 * 1024
"""Asked of the kernel: about one large keyframe."""


class PortPair:
    """An even port for RTP and the next one for RTCP, connected to the client's ports."""

    def __init__(self, rtp: socket.socket, rtcp: socket.socket) -> None:
        self.rtp = rtp
        self.rtcp = rtcp
        self._is_watched = False

    @classmethod
    def open(cls, local: str, remote: str, ports: tuple[int, int]) -> Self:
        """Bind a pair at `local` and connect it to `remote`. Raises OSError if there is none to be had."""
        rtp, rtcp = bind_port_pair(local)
        pair = cls(rtp, rtcp)
        try:
            for bound, port in zip((rtp, rtcp), ports, strict=True):
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
                bound.connect((remote, port))
        except OSError:
            pair.close()
            raise
        return pair

    @property
    def ports(self) -> tuple[int, int]:
        return self.rtp.getsockname()[1], self.rtcp.getsockname()[1]

    def listen(self, on_report: Callable[[], None]) -> None:
        """Call this whenever the peer says something by RTCP, until `close`."""
        asyncio.get_running_loop().add_reader(self.rtcp.fileno(), self._drain, on_report)
        self._is_watched = True

    def _drain(self, on_report: Callable[[], None]) -> None:
        for _ in range(MAX_DATAGRAMS_AT_ONCE):
            try:
                self.rtcp.recv(MAX_DATAGRAM_BYTES)
            except OSError:
                return  # empty, or an ICMP message about what we sent
            on_report()

    def close(self) -> None:
        if self._is_watched:
            asyncio.get_running_loop().remove_reader(self.rtcp.fileno())
            self._is_watched = False
        self.rtp.close()
        self.rtcp.close()


def send(bound: socket.socket, datagram: bytes | memoryview) -> bool:
    """Whether the kernel took it. A peer that has closed its port is no error: UDP promises nothing."""
    try:
        bound.send(datagram)
    except (BlockingIOError, ConnectionError):
        return False
    except OSError:
        return False  # no route any more: the RTSP connection finds that out
    return True
