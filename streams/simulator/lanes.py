"""The ways in which a simulated camera's packets of one track go: in the RTSP connection, or over UDP."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Protocol

from streams.wire.rtsp import Transport, UdpTransport, serialize_interleaved


class Lane(Protocol):
    """`transport`: the header that announces it."""

    @property
    def transport(self) -> str: ...

    async def send(self, packets: Sequence[bytes]) -> None: ...

    async def send_control(self, packets: Sequence[bytes]) -> None: ...

    def close(self) -> None: ...


class InterleavedLane:
    def __init__(self, writer: asyncio.StreamWriter, channels: tuple[int, int]) -> None:
        self._writer = writer
        self._channels = channels
        self.transport = str(Transport(rtp_channel=channels[0], rtcp_channel=channels[1]))

    async def send(self, packets: Sequence[bytes]) -> None:
        await self._send(self._channels[0], packets)

    async def send_control(self, packets: Sequence[bytes]) -> None:
        await self._send(self._channels[1], packets)

    def close(self) -> None:
        """The connection is its owner's."""

    async def _send(self, channel: int, packets: Sequence[bytes]) -> None:
        self._writer.write(b"".join(serialize_interleaved(channel, packet) for packet in packets))
        await self._writer.drain()


class UdpLane:
    """From two sockets beside the RTSP connection's own address; what the kernel does not take is lost."""

    def __init__(self, writer: asyncio.StreamWriter, client_ports: tuple[int, int]) -> None:
        host = writer.get_extra_info("peername")[0]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in client_ports]
        for own, port in zip(self._sockets, client_ports, strict=True):
            own.bind((writer.get_extra_info("sockname")[0], 0))
            own.connect((host, port))
            own.setblocking(False)
        server_ports = tuple(own.getsockname()[1] for own in self._sockets)
        self.transport = str(
            UdpTransport(client_ports=client_ports, server_ports=(server_ports[0], server_ports[1]))
        )

    async def send(self, packets: Sequence[bytes]) -> None:
        self._send(self._sockets[0], packets)

    async def send_control(self, packets: Sequence[bytes]) -> None:
        self._send(self._sockets[1], packets)

    def close(self) -> None:
        for own in self._sockets:
            own.close()

    def _send(self, own: socket.socket, packets: Sequence[bytes]) -> None:
        for packet in packets:
            try:
                own.send(packet)
            except OSError:
                continue  # the client is gone, or reads too slowly
