"""What the ledger remembers: who, of which unit, did what to what, why, and with what outcome.

《公共安全视频图像信息系统管理条例》 art. 16 (3) asks for 事由、内容、单位、姓名: these are `purpose_*`,
`content`, `unit_name`, `actor_name`. A record's canonical bytes are its Merkle leaf; what is about a person
stands there as a commitment only, so that it can be erased (PIPL art. 47) and every proof stays good.
"""

import re
from enum import StrEnum
from typing import Any

import msgspec

from gateway.audit.commitments import (
    DisclosureFormatError,
    commit,
    disclose,
    parse_disclosures,
    serialize_disclosures,
)

FORMAT_VERSION = 2
"""Version 1 had no commitments: its leaves hold every field in plain text."""
SENSITIVE_FIELDS = ("actor_name", "content", "purpose_note", "purpose_reference", "remote")
"""Of an event: in the leaf only as commitments."""
ERASED_SEQ, ERASED_FIELDS = "seq", "fields"
"""Of an ERASURE record's detail: which record it took from, and what (a list of `SENSITIVE_FIELDS`)."""
MAX_TEXT_CHARS = 2000
"""Longer text, most of it typed by people, is cut and ends in an ellipsis: one can always record."""
MAX_DETAILS = 64
MAX_DETAIL_ITEMS = 256
MAX_INTEGER = 2**53 - 1
"""RFC 8785 §3.2.2.3: beyond it, readers of JSON disagree about an integer's value."""
MAX_LEAF_BYTES = 4 * 1024 * 1024

_DETAIL_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

DetailValue = str | int | bool | None | list[str]


class AuditKind(StrEnum):
    """Everything that is recorded. Closed; a value is never reused for another meaning."""

    INSTALLATION = "installation"
    LOGIN = "login"
    LOGIN_FAILED = "login_failed"
    LOGOUT = "logout"
    DECISION = "decision"
    SESSION_START = "session_start"
    SESSION_END = "session_end"
    GRANT = "grant"
    REVOKE = "revoke"
    USER_CREATED = "user_created"
    USER_CHANGED = "user_changed"
    DEPARTMENT_CREATED = "department_created"
    DEPARTMENT_CHANGED = "department_changed"
    DEPARTMENT_DELETED = "department_deleted"
    GROUP_CREATED = "group_created"
    GROUP_CHANGED = "group_changed"
    GROUP_DELETED = "group_deleted"
    CAMERA_CREATED = "camera_created"
    CAMERA_CHANGED = "camera_changed"
    CAMERA_DELETED = "camera_deleted"
    CATALOGUE_IMPORTED = "catalogue_imported"
    PURPOSE_CHANGED = "purpose_changed"
    POLICY_CHANGED = "policy_changed"
    ANALYSIS_START = "analysis_start"
    ANALYSIS_END = "analysis_end"
    EXPORT = "export"
    LEDGER_READ = "ledger_read"
    UNDERTAKING_PUBLISHED = "undertaking_published"
    UNDERTAKING_ACCEPTED = "undertaking_accepted"
    SESSION_CONFIRMED = "session_confirmed"
    THUMBNAILS = "thumbnails"
    CAMERA_TESTED = "camera_tested"
    LOGIN_FAILURES = "login_failures"
    SECOND_FACTOR_CHANGED = "second_factor_changed"
    KEY_ISSUED = "key_issued"
    DUTY_START = "duty_start"
    DUTY_END = "duty_end"
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_CLOSED = "dispute_closed"
    SIGNING_KEY_CHANGED = "signing_key_changed"
    PERIOD_REMOVED = "period_removed"
    ERASURE = "erasure"
    POLICY_ALARM = "policy_alarm"
    POLICY_FROZEN = "policy_frozen"
    POLICY_CONFIRMED = "policy_confirmed"
    POLICY_FILE_ACCEPTED = "policy_file_accepted"
    CLOCK_ALARM = "clock_alarm"
    LEDGER_OUTAGE = "ledger_outage"


class Outcome(StrEnum):
    ALLOW = "allow"
    DENY = "deny"
    OK = "ok"
    ERROR = "error"


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One happening, before the ledger gives it a number and a time.

    `content` (内容) is a sentence for people; `reason` the stable code of why it came out so; `purpose_*`
    (事由) what the actor declared; `unit_*` (单位) the actor's department; `resource` is `kind:id`;
    `owner_id` the department whose camera it is; `camera_ids` and `owner_ids` all of them where a record is
    about several. `detail` has names of `[a-z0-9_]` and values that are text, integers, booleans, None or
    lists of text. Never put a secret in any of them: records are for reading.
    """

    kind: AuditKind
    outcome: Outcome
    content: str
    actor_id: str | None = None
    actor_name: str | None = None
    unit_id: str | None = None
    unit_name: str | None = None
    purpose_code: str | None = None
    purpose_reference: str | None = None
    purpose_note: str | None = None
    action: str | None = None
    resource: str | None = None
    camera_id: str | None = None
    camera_ids: tuple[str, ...] = ()
    owner_id: str | None = None
    owner_ids: tuple[str, ...] = ()
    session_id: str | None = None
    reason: str | None = None
    rule: str | None = None
    revision: int | None = None
    remote: str | None = None
    request_id: str | None = None
    detail: dict[str, DetailValue] = {}


_LIST_FIELDS = ("camera_ids", "owner_ids")
_TEXT_FIELDS = tuple(
    set(AuditEvent.__struct_fields__) - {"kind", "outcome", "revision", "detail", *_LIST_FIELDS}
)


def subjects_of(event: AuditEvent) -> list[str]:
    """Whom a record about several is about, as `camera:id` and `owner:id`, in order; see `audit_subjects`."""
    return [f"camera:{each}" for each in event.camera_ids] + [f"owner:{each}" for each in event.owner_ids]


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An event with its place in the ledger. `at`: microseconds since the epoch, UTC, never decreasing.

    `erased`: the sensitive fields that were recorded and are no more; the event has "" or None there.
    """

    seq: int
    at: int
    event: AuditEvent
    erased: tuple[str, ...] = ()


class RecordFormatError(ValueError):
    """These bytes are not the canonical form of a record."""


def _clean(text: str) -> str:
    # nearly every text, without the cost of an expression
    if text.isprintable() and len(text) <= MAX_TEXT_CHARS:
        return text
    text = _UNSTORABLE.sub("\ufffd", text)
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"


def _clean_detail(detail: dict[str, DetailValue]) -> dict[str, DetailValue]:
    if len(detail) > MAX_DETAILS:
        raise ValueError(f"more than {MAX_DETAILS} details in an audit event")
    cleaned: dict[str, DetailValue] = {}
    for name, value in detail.items():
        if not _DETAIL_NAME.fullmatch(name):
            raise ValueError("a detail's name has other characters than a-z, 0-9 and _")
        if isinstance(value, str):
            cleaned[name] = _clean(value)
        elif isinstance(value, list):
            if len(value) > MAX_DETAIL_ITEMS:
                raise ValueError(f"more than {MAX_DETAIL_ITEMS} items in an audit detail")
            cleaned[name] = [_clean(item) for item in value]
        else:
            cleaned[name] = _checked(value)
    return cleaned


def _clean_list(identifiers: tuple[str, ...]) -> tuple[str, ...]:
    if len(identifiers) > MAX_DETAIL_ITEMS:
        raise ValueError(f"more than {MAX_DETAIL_ITEMS} cameras or owners in an audit event")
    return tuple(sorted({_clean(each) for each in identifiers}))


def _checked(number: int | None) -> int | None:
    if number is not None and abs(number) > MAX_INTEGER:
        raise ValueError("an integer of an audit event is beyond 2^53 - 1")
    return number


def normalize(event: AuditEvent) -> AuditEvent:
    """The event as it will be stored: text cut to `MAX_TEXT_CHARS`, NUL and lone surrogates replaced, each
    camera and owner of several once and in order.

    Raise ValueError for what only a bug can produce: detail names and counts, too many cameras or owners,
    integers beyond 2^53 - 1.
    """
    _checked(event.revision)
    changes: dict[str, object] = {"detail": _clean_detail(event.detail)} if event.detail else {}
    for name in _LIST_FIELDS:
        if identifiers := getattr(event, name):
            changes[name] = _clean_list(identifiers)
    for name in _TEXT_FIELDS:
        text = getattr(event, name)
        if text is not None and (cleaned := _clean(text)) is not text:
            changes[name] = cleaned
    return msgspec.structs.replace(event, **changes) if changes else event


class _Leaf(AuditEvent, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    v: int
    seq: int
    at: int
    # since version 2 there is only its commitment
    content: str | None = None  # type: ignore[assignment]
    commitments: dict[str, str] = {}


_PLAIN_FIELDS = tuple(name for name in AuditEvent.__struct_fields__ if name not in SENSITIVE_FIELDS)
_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(_Leaf)


def serialize(record: AuditRecord) -> tuple[bytes, bytes]:
    """The leaf, and the disclosures of what it commits to with new salts.

    The leaf is RFC 8785 (sorted ASCII names, no space or floats, UTF-8), without empty fields.
    """
    event = record.event
    values = {name: value for name in SENSITIVE_FIELDS if (value := getattr(event, name)) is not None}
    disclosures = disclose(values)
    leaf = _Leaf(
        v=FORMAT_VERSION,
        seq=record.seq,
        at=record.at,
        commitments={name: commit(name, salt, value) for name, (salt, value) in disclosures.items()},
        **{name: getattr(event, name) for name in _PLAIN_FIELDS},
    )
    return _encoder.encode(leaf), serialize_disclosures(disclosures)


def parse(leaf: bytes, disclosures: bytes | None) -> AuditRecord:
    """The record, with as much as is disclosed of what the leaf commits to.

    `disclosures` is None for a leaf of version 1 only. Raise RecordFormatError for bytes that `serialize`
    would not produce, and for disclosures that are not what was committed to.
    """
    if len(leaf) > MAX_LEAF_BYTES:
        raise RecordFormatError("longer than any record")
    try:
        stored = _decoder.decode(leaf)
    # the second comes from msgspec's own message about an unknown field
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordFormatError("not a record of a known version") from error
    if _encoder.encode(stored) != leaf:
        raise RecordFormatError("not in canonical form")
    plain: dict[str, Any] = {name: getattr(stored, name) for name in _PLAIN_FIELDS}
    sensitive = {name: getattr(stored, name) for name in SENSITIVE_FIELDS}
    if stored.v == 1 and not stored.commitments and stored.content is not None:
        if disclosures is not None:
            raise RecordFormatError("a record without commitments has disclosures")
        return AuditRecord(seq=stored.seq, at=stored.at, event=AuditEvent(**plain, **sensitive))
    if stored.v != FORMAT_VERSION or any(value is not None for value in sensitive.values()):
        raise RecordFormatError("not a record of a known version")
    disclosed = _disclosed(stored.commitments, disclosures)
    event = AuditEvent(**plain | {"content": ""} | disclosed)
    erased = tuple(name for name in stored.commitments if name not in disclosed)
    return AuditRecord(seq=stored.seq, at=stored.at, event=event, erased=erased)


def _disclosed(commitments: dict[str, str], disclosures: bytes | None) -> dict[str, str]:
    if "content" not in commitments or not commitments.keys() <= set(SENSITIVE_FIELDS):
        raise RecordFormatError("not a record of a known version")
    if disclosures is None:
        raise RecordFormatError("its disclosures are gone")
    try:
        disclosed = parse_disclosures(disclosures)
    except DisclosureFormatError as error:
        raise RecordFormatError(str(error)) from error
    for name, (salt, value) in disclosed.items():
        if commitments.get(name) != commit(name, salt, value):
            raise RecordFormatError(f"{name} is not what was committed to")
    return {name: value for name, (_, value) in disclosed.items()}
