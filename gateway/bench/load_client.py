"""`python -m gateway.bench.load_client`: thousands of HTTP-FLV viewers in one process, as light as can be.

A plain epoll loop over non-blocking sockets. Once a viewer has its first keyframe its bytes are counted and
thrown away inside the kernel (MSG_TRUNC, tcp(7)), except those of a few sampled viewers.
"""

import contextlib
import os
import resource
import select
import signal
import socket
import ssl
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import cache
from typing import Final
from urllib.parse import urlsplit

import msgspec

from gateway.bench.flv_start import FlvStart
from gateway.bench.load_messages import Ask, Begin, Command, End, LoadReport, Open, Progress, ViewerReport
from gateway.bench.stamp import read_stamps
from streams.errors import ProtocolError
from streams.sources.sandbox import die_with_parent

ALIVE_SECONDS: Final = 2.0
"""A viewer that received nothing for so long at the end of the window is not alive."""
MAX_LATENCIES: Final = 200_000

_BUFFER_BYTES: Final = 256 * 1024
_EVENTS: Final = 1024
_POLL_SECONDS: Final = 0.25
_STDIN: Final = 0
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Viewer:
    """One connection. `receive` takes what is there and returns its size; None until the first keyframe."""

    __slots__ = (
        "bytes_received", "first_keyframe_ns", "gap_ns", "is_connected", "is_sampled", "last_ns", "opened_ns",
        "receive", "request", "socket", "start", "step",
    )  # fmt: skip

    def __init__(self, connection: socket.socket, request: bytes, *, is_sampled: bool) -> None:
        self.socket = connection
        self.request = request
        self.is_sampled = is_sampled
        self.is_connected = True
        self.start = FlvStart()
        self.opened_ns = self.last_ns = time.monotonic_ns()
        self.bytes_received = self.gap_ns = 0
        self.first_keyframe_ns: int | None = None
        self.receive: Callable[[], int] | None = None
        self.step: Callable[[], None] = lambda: None


class LoadClient:
    """All viewers of one benchmark; `run` returns what they saw."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._viewers: dict[int, _Viewer] = {}
        self._all: list[_Viewer] = []
        self._failures: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=MAX_LATENCIES)
        self._buffer = bytearray(_BUFFER_BYTES)
        self._commands = bytearray()
        self._report: LoadReport | None = None
        self._began_ns = time.monotonic_ns()
        self._began_cpu = 0.0

    def run(self) -> LoadReport | None:
        """Until the command to end; None if stdin ends without it."""
        self._epoll.register(_STDIN, select.EPOLLIN)
        try:
            while self._report is None:
                for descriptor, _ in self._epoll.poll(_POLL_SECONDS, _EVENTS):
                    if (viewer := self._viewers.get(descriptor)) is not None:
                        self._receive(viewer)
                    elif descriptor == _STDIN and not self._obey():
                        return None
        finally:
            for viewer in tuple(self._viewers.values()):
                self._close(viewer)
            self._epoll.close()
        return self._report

    def _receive(self, viewer: _Viewer) -> None:
        if viewer.receive is None:
            self._start(viewer)
            return
        try:
            size = viewer.receive()
        except _NOT_NOW:
            return
        except OSError:
            size = 0
        if not size:
            self._close(viewer)
            return
        now_ns = time.monotonic_ns()
        silence_ns = now_ns - viewer.last_ns
        if silence_ns > viewer.gap_ns:  # noqa: PLR1730 - cheaper than max(), 75,000 times a second
            viewer.gap_ns = silence_ns
        viewer.last_ns = now_ns
        viewer.bytes_received += size

    def _start(self, viewer: _Viewer) -> None:
        """Connect, ask, and read up to the first keyframe: one step, as far as it goes now."""
        try:
            viewer.step()
        except _NOT_NOW:
            return
        except ProtocolError as error:
            self._fail(viewer, str(error))
        except OSError as error:
            self._fail(viewer, type(error).__name__)

    def _fail(self, viewer: _Viewer, reason: str) -> None:
        self._failures[reason] += 1
        self._close(viewer)

    def _close(self, viewer: _Viewer) -> None:
        viewer.is_connected = False
        del self._viewers[viewer.socket.fileno()]
        viewer.socket.close()

    def _open(self, command: Open) -> None:
        url = urlsplit(command.url)
        host = url.hostname or ""
        port = url.port or (443 if url.scheme == "https" else 80)
        path = url._replace(scheme="", netloc="").geturl()
        request = f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nUser-Agent: custos-bench\r\n\r\n".encode()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        opened_ns = time.monotonic_ns()
        with contextlib.suppress(BlockingIOError):
            connection.connect((host, port))
        if url.scheme == "https":
            connection = _tls(command.ca_file).wrap_socket(
                connection, server_hostname=host, do_handshake_on_connect=False
            )
        viewer = _Viewer(connection, request, is_sampled=command.sampled)
        viewer.opened_ns = opened_ns
        viewer.step = lambda: self._ask(viewer)
        self._viewers[connection.fileno()] = viewer
        self._all.append(viewer)
        self._epoll.register(connection, select.EPOLLOUT)

    def _ask(self, viewer: _Viewer) -> None:
        if error := viewer.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        if isinstance(viewer.socket, ssl.SSLSocket):
            self._epoll.modify(viewer.socket, select.EPOLLIN)
            viewer.socket.do_handshake()
        viewer.socket.send(viewer.request)
        viewer.step = lambda: self._read_start(viewer)
        self._epoll.modify(viewer.socket, select.EPOLLIN)

    def _read_start(self, viewer: _Viewer) -> None:
        while True:
            data = viewer.socket.recv(_BUFFER_BYTES)
            if not data:
                raise ProtocolError("the connection ended before a keyframe")
            if viewer.start.receive_data(data):
                viewer.first_keyframe_ns = time.monotonic_ns()
                viewer.last_ns = viewer.first_keyframe_ns
                viewer.receive = self._receiver(viewer)
                return

    def _receiver(self, viewer: _Viewer) -> Callable[[], int]:
        buffer, connection = self._buffer, viewer.socket
        if isinstance(connection, ssl.SSLSocket):

            def receive() -> int:
                size = connection.recv_into(buffer)
                if viewer.is_sampled:
                    self._sample(size)
                while connection.pending():  # decrypted already: epoll would not tell
                    size += connection.recv_into(buffer)
                return size

        elif viewer.is_sampled:

            def receive() -> int:
                size = connection.recv_into(buffer)
                self._sample(size)
                return size

        else:
            discard = connection.recv_into

            def receive() -> int:
                return discard(buffer, _BUFFER_BYTES, socket.MSG_TRUNC)

        return receive

    def _sample(self, size: int) -> None:
        now_ns = time.monotonic_ns()
        self._latencies.extend((now_ns - sent_ns) / 1e6 for sent_ns in read_stamps(self._buffer, size))

    def _obey(self) -> bool:
        """Do what stdin says; False at its end."""
        data = os.read(_STDIN, _BUFFER_BYTES)
        self._commands += data
        *lines, rest = self._commands.split(b"\n")
        self._commands = rest
        for line in lines:
            command: Command = msgspec.json.decode(line, type=Command)
            match command:
                case Open():
                    self._open(command)
                case Ask():
                    started = sum(viewer.first_keyframe_ns is not None for viewer in self._all)
                    write_line(Progress(started=started, failed=self._failures.total()))
                case Begin():
                    self._begin()
                case End():
                    self._report = self._result()
        return bool(data)

    def _begin(self) -> None:
        self._latencies.clear()
        for viewer in self._all:
            viewer.bytes_received = viewer.gap_ns = 0
        self._began_ns, self._began_cpu = time.monotonic_ns(), time.process_time()

    def _result(self) -> LoadReport:
        now_ns = time.monotonic_ns()
        return LoadReport(
            seconds=(now_ns - self._began_ns) / 1e9,
            cpu_seconds=time.process_time() - self._began_cpu,
            viewers=[
                ViewerReport(
                    bytes_received=viewer.bytes_received,
                    gap_ms=max(viewer.gap_ns, now_ns - viewer.last_ns) / 1e6,
                    first_keyframe_ms=_since(viewer.opened_ns, viewer.first_keyframe_ns),
                    is_alive=viewer.is_connected
                    and viewer.receive is not None
                    and now_ns - viewer.last_ns < ALIVE_SECONDS * 1e9,
                    last_ns=viewer.last_ns,
                )
                for viewer in self._all
            ],
            latencies_ms=list(self._latencies),
            failures=dict(self._failures),
        )


@cache
def _tls(ca_file: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)


def _since(opened_ns: int, moment_ns: int | None) -> float | None:
    return None if moment_ns is None else (moment_ns - opened_ns) / 1e6


def write_line(message: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    report = LoadClient().run()
    if report is not None:
        write_line(report)


if __name__ == "__main__":
    main()
