"""A grant as the API takes it, as it answers it, and as the database and the ledger keep it."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import Meta

from gateway.clock import from_micros, to_micros
from gateway.forms import END, Identifier, Text
from gateway.policy_feed import grant_rule
from gateway.purposes import Code
from policies.access import (
    Action,
    Effect,
    GrantRule,
    Object,
    ObjectKind,
    Obligations,
    Reason,
    Schedule,
    Subject,
    SubjectKind,
)
from policies.administration import GrantProposal

Moment = Annotated[datetime, Meta(tz=True)]
TargetId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+" + END)]
"""An id, or a tag, which is a word of people."""


class Party(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: SubjectKind
    id: Identifier


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: ObjectKind
    id: TargetId


class NewGrant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`valid_from` inclusive, `valid_to` exclusive; no `schedule`: any hour; no `purposes`: any purpose."""

    subject: Party
    object: Target
    actions: Annotated[list[Action], Meta(min_length=1, max_length=16)]
    effect: Effect = Effect.ALLOW
    valid_from: Moment | None = None
    valid_to: Moment | None = None
    schedule: Schedule | None = None
    purposes: Annotated[list[Code], Meta(max_length=64)] | None = None
    obligations: Obligations = Obligations()
    reason: Text = ""

    @property
    def target(self) -> Object:
        return Object(self.object.kind, self.object.id)

    def proposal(self, giver_id: str) -> GrantProposal:
        """What the PAP is asked."""
        return GrantProposal(
            giver_id=giver_id,
            subject=Subject(self.subject.kind, self.subject.id),
            object=self.target,
            actions=frozenset(self.actions),
            effect=self.effect,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
            schedule=self.schedule,
            purposes=None if self.purposes is None else frozenset(self.purposes),
            obligations=self.obligations,
        )

    def described(self) -> str:
        """What somebody is about to do (内容)."""
        return (
            f"grant {', '.join(sorted(self.actions))} on {self.object.kind} {self.object.id} "
            f"to {self.subject.kind} {self.subject.id}"
        )


class GrantEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`parent`: the grant of `camera:share` that it was given by; None if the giver could by office.

    `void`: why it allows nothing now, whatever its conditions (disputed, frozen, not in the ledger, damaged,
    or the one that it was given by is so); None if it counts.
    """

    id: str
    subject: Party
    object: Target
    actions: list[Action]
    effect: Effect
    valid_from: datetime | None
    valid_to: datetime | None
    schedule: Schedule | None
    purposes: list[str] | None
    obligations: Obligations
    parent: str | None
    reason: str
    created_by: str
    created_at: datetime
    revoked_at: datetime | None
    void: Reason | None


def entry_of(
    rule: GrantRule, reason: str, created_by: str, created_at: datetime, void: Reason | None = None
) -> GrantEntry:
    return GrantEntry(
        id=rule.id,
        subject=Party(kind=rule.subject.kind, id=rule.subject.id),
        object=Target(kind=rule.object.kind, id=rule.object.id),
        actions=sorted(rule.actions),
        effect=rule.effect,
        valid_from=rule.valid_from,
        valid_to=rule.valid_to,
        schedule=rule.schedule,
        purposes=None if rule.purposes is None else sorted(rule.purposes),
        obligations=rule.obligations,
        parent=rule.parent,
        reason=reason,
        created_by=created_by,
        created_at=created_at,
        revoked_at=None,
        void=void,
    )


def entry_of_row(row: sa.Row[Any], void: Reason | None) -> GrantEntry:
    return entry_of(grant_rule(row), row.reason, row.created_by, from_micros(row.created_at), void)


def row_of(rule: GrantRule) -> dict[str, object]:
    """The columns that say what it allows."""
    return {
        "id": rule.id,
        "subject_kind": rule.subject.kind.value,
        "subject_id": rule.subject.id,
        "object_kind": rule.object.kind.value,
        "object_id": rule.object.id,
        "actions": sorted(rule.actions),
        "effect": rule.effect.value,
        "valid_from": to_micros(rule.valid_from) if rule.valid_from else None,
        "valid_to": to_micros(rule.valid_to) if rule.valid_to else None,
        "schedule": None if rule.schedule is None else msgspec.to_builtins(rule.schedule),
        "purposes": None if rule.purposes is None else sorted(rule.purposes),
        "obligations": msgspec.to_builtins(rule.obligations),
        "parent_id": rule.parent,
    }


def described(rule: GrantRule, reason: str) -> str:
    """What was given or taken back (内容)."""
    until = f", until {rule.valid_to.isoformat()}" if rule.valid_to else ""
    hours = ", at certain hours" if rule.schedule else ""
    return (
        f"{rule.effect} {', '.join(sorted(rule.actions))} on {rule.object.kind} {rule.object.id} "
        f"to {rule.subject.kind} {rule.subject.id}{until}{hours}; {reason}"
    )
