"""The work of an analysis process: keyframes in, findings and JPEGs out; one connection per relay worker."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
import structlog

from analytics.messages import (
    AnalysisOrder,
    Answer,
    Begun,
    Finding,
    Forget,
    Job,
    MessageError,
    receive_to_process,
    serialize,
)
from analytics.scenes import SAMPLE_SIZE, Analyser, Luma, UnknownAnalyserError, open_analyser
from streams.decode import DecodedFrame, DecodeError, decode, encode_jpeg
from streams.media import AccessUnit, Track

MAX_ANALYSES = 4000
"""Of one connection; each keeps some 60 kB of background."""
MAX_CONNECTIONS = 64
JOB_CPU_SECONDS = 10.0
"""The slowest keyframe takes 0.3 s; what takes this long is an attack, and ends the process (SIGPROF)."""
_SEND_TIMEOUT_SECONDS = 30.0

_log = structlog.get_logger(__name__)


class JobRunner:
    """Does jobs, and keeps for each analysis what it has learned. `decode_keyframe` is counted in tests."""

    def __init__(self, decode_keyframe: Callable[[Track, AccessUnit], DecodedFrame] = decode) -> None:
        self._decode = decode_keyframe
        self._analysers: dict[str, tuple[Mapping[str, Any], Analyser]] = {}

    def forget(self, analysis: str) -> None:
        self._analysers.pop(analysis, None)

    def run(self, job: Job) -> Answer:
        """Decode once, do everything that is ordered. Raises only on a bug."""
        started = time.thread_time_ns()
        try:
            frame = self._decode(job.track, job.unit)
        except DecodeError as error:
            return Answer(number=job.number, error=error.code, cpu_ns=time.thread_time_ns() - started)
        decoded = time.thread_time_ns()
        findings = []
        if job.analyses:
            luma = frame.luma(SAMPLE_SIZE)
            findings = [self._analyse(order, luma, job) for order in job.analyses]
        jpegs = [encode_jpeg(frame.bgr(order.width), order.quality) for order in job.jpegs]
        return Answer(
            number=job.number,
            findings=findings,
            jpegs=jpegs,
            cpu_ns=time.thread_time_ns() - started,
            decode_ns=decoded - started,
        )

    def _analyse(self, order: AnalysisOrder, luma: Luma, job: Job) -> Finding:
        try:
            analyser = self._analyser(order)
        except UnknownAnalyserError:
            return Finding(order.analysis, [], "analyser_unknown")
        except msgspec.ValidationError:
            return Finding(order.analysis, [], "parameters_invalid")
        if analyser is None:
            return Finding(order.analysis, [], "too_many_analyses")
        return Finding(order.analysis, analyser.analyse(luma, job.captured_at))

    def _analyser(self, order: AnalysisOrder) -> Analyser | None:
        """The analysis' own analyser, a new one when its order changes; None if there is no room."""
        parameters = {**order.parameters, "analyser": order.analyser}
        known = self._analysers.get(order.analysis)
        if known is not None and known[0] == parameters:
            return known[1]
        if known is None and len(self._analysers) >= MAX_ANALYSES:
            return None
        analyser = open_analyser(order.analyser, order.parameters)
        self._analysers[order.analysis] = parameters, analyser
        return analyser


def serve(listener: socket.socket) -> None:
    """Serve relay workers until the process is ended. One thread each, one job at a time: one core."""
    is_busy = threading.Lock()
    places = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def work(connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                _serve_worker(connection, is_busy)
        finally:
            places.release()

    while True:
        places.acquire()
        connection, _ = listener.accept()
        threading.Thread(target=work, args=(connection,), daemon=True).start()


def _serve_worker(connection: socket.socket, is_busy: threading.Lock) -> None:
    runner = JobRunner()
    while True:
        connection.settimeout(None)
        try:
            message = receive_to_process(connection)
        except MessageError as error:
            _log.error("worker_message_refused", error=str(error))
            return
        match message:
            case None:
                return
            case Forget():
                runner.forget(message.analysis)
            case Job():
                connection.settimeout(_SEND_TIMEOUT_SECONDS)
                with is_busy:
                    connection.sendall(serialize(Begun(message.number)))
                    signal.setitimer(signal.ITIMER_PROF, JOB_CPU_SECONDS)
                    try:
                        answer = runner.run(message)
                    finally:
                        signal.setitimer(signal.ITIMER_PROF, 0)
                connection.sendall(serialize(answer))
