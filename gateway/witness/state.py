"""What a witness holds, on disk: a file of heads, which `custos audit verify --head` takes, and a log.

The log, `FILE.log`, has alarms, their ends, and the rotations of keys, as JSON lines. Nothing is removed.
"""

from collections import deque
from pathlib import Path

import msgspec

from gateway.audit.heads import MAX_HEAD_BYTES, HeadFormatError, SignedHead, Verifier, parse_head
from gateway.audit.key_history import (
    KeyChainError,
    KeyHistory,
    Rotation,
    RotationJson,
    parse_rotation,
)
from gateway.audit.line_files import append_line, last_lines

HEADS_AT_HAND = 500
ALARMS_AT_HAND = 100
MAX_LOG_LINE_BYTES = 64 * 1024


class WitnessStateError(Exception):
    """The witness's own files cannot be trusted: damaged, or of another ledger."""

    code = "witness_state"


class Alarm(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="alarm"):
    """`at`: microseconds, UTC, by the witness's clock. `head`: what the gateway showed, signed: the evidence.

    `held_size`: of the newest head that the witness held then.
    """

    code: str
    detail: str
    at: int
    held_size: int = 0
    head: dict[str, str | int] | None = None


class AlarmOver(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="over"):
    """The gateway's answers are in order again; what was seen stays seen."""

    code: str
    at: int


class _RotationLine(RotationJson, frozen=True, tag_field="type", tag="rotation"):
    pass


_decoder: msgspec.json.Decoder[Alarm | AlarmOver | _RotationLine] = msgspec.json.Decoder(
    Alarm | AlarmOver | _RotationLine
)


class WitnessState:
    """`active`: alarms that have not ended, by code. Every method that writes raises OSError."""

    def __init__(self, path: Path, first: Verifier) -> None:
        """Read what is held. Raise WitnessStateError or OSError."""
        self._heads_path = path
        self._log_path = path.with_name(path.name + ".log")
        self.keys = KeyHistory(first)
        self.rotations: list[Rotation] = []
        self.active: dict[str, Alarm] = {}
        self.alarms: deque[Alarm] = deque(maxlen=ALARMS_AT_HAND)
        self.heads: deque[SignedHead] = deque(maxlen=HEADS_AT_HAND)
        self._read_log()
        self._read_heads()

    @property
    def newest(self) -> SignedHead | None:
        return self.heads[-1] if self.heads else None

    @property
    def held_size(self) -> int:
        return self.heads[-1].head.size if self.heads else 0

    def hold(self, head: SignedHead) -> None:
        append_line(self._heads_path, head.to_line(), MAX_HEAD_BYTES)
        self.heads.append(head)

    def follow(self, rotation: Rotation) -> None:
        """Keep a rotation, on disk first: heads of its key are nothing without it. Raise KeyChainError."""
        key = rotation.verify(self.keys)
        self.keys.check(rotation.after_size, key)
        self._log({"type": "rotation", **rotation.to_json()})
        self.keys.change(rotation.after_size, key)
        self.rotations.append(rotation)

    def raise_alarm(self, alarm: Alarm) -> None:
        self.active[alarm.code] = alarm
        self.alarms.append(alarm)
        self._log(alarm)

    def end_alarm(self, over: AlarmOver) -> None:
        del self.active[over.code]
        self._log(over)

    def _log(self, entry: object) -> None:
        append_line(self._log_path, msgspec.json.encode(entry) + b"\n", MAX_LOG_LINE_BYTES)

    def _read_log(self) -> None:
        if not self._log_path.exists():
            return
        with self._log_path.open("rb") as file:
            while (line := file.readline(MAX_LOG_LINE_BYTES + 1)).endswith(b"\n"):
                self._take(line)
        if len(line) > MAX_LOG_LINE_BYTES:
            raise WitnessStateError(f"{self._log_path} is damaged")

    def _take(self, line: bytes) -> None:
        try:
            entry = _decoder.decode(line)
            if isinstance(entry, Alarm):
                self.active[entry.code] = entry
                self.alarms.append(entry)
            elif isinstance(entry, AlarmOver):
                self.active.pop(entry.code, None)
            else:
                rotation = parse_rotation(entry)
                if rotation in self.rotations:  # written, but its disk did not say so
                    return
                self.keys.change(rotation.after_size, rotation.verify(self.keys))
                self.rotations.append(rotation)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WitnessStateError(f"{self._log_path} is damaged") from error
        except KeyChainError as error:
            raise WitnessStateError(f"{self._log_path}: {error}") from error

    def _read_heads(self) -> None:
        for line in last_lines(self._heads_path, HEADS_AT_HAND * MAX_HEAD_BYTES)[-HEADS_AT_HAND:]:
            try:
                head = parse_head(line)
            except HeadFormatError as error:
                raise WitnessStateError(f"{self._heads_path} is damaged") from error
            if not self.keys.verify(head):
                raise WitnessStateError(f"{self._heads_path} holds a head of another ledger or key")
            self.heads.append(head)
