"""The vocabulary of a decision: plain values that the PEP, the PDP and the PAP exchange.

Role words after NIST SP 800-162: a *principal* asks for an *action* on a *resource* in an *environment*;
the policy decision point answers with a *decision*; *obligations* bind whoever acts on it.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec


class Action(StrEnum):
    """Everything that can be permitted, `resource:verb`. Closed: a policy that names another is refused."""

    LIVE_VIEW = "live:view"
    LIVE_SNAPSHOT = "live:snapshot"
    FRAMES_CONSUME = "frames:consume"
    PTZ_CONTROL = "ptz:control"
    CAMERA_READ = "camera:read"
    CAMERA_MANAGE = "camera:manage"
    CAMERA_SHARE = "camera:share"
    DEPARTMENT_MANAGE = "department:manage"
    USER_MANAGE = "user:manage"
    PURPOSE_MANAGE = "purpose:manage"
    SECURITY_MANAGE = "security:manage"
    SESSION_READ = "session:read"
    SESSION_END = "session:end"
    AUDIT_READ = "audit:read"
    USAGE_READ = "usage:read"


MEDIA_ACTIONS = frozenset({Action.LIVE_VIEW, Action.LIVE_SNAPSHOT, Action.FRAMES_CONSUME, Action.PTZ_CONTROL})
"""Actions that carry pixels or move a camera: no role ships with them, only a grant gives them."""

VISIBLE_ACTIONS = MEDIA_ACTIONS | {Action.CAMERA_READ}
"""A camera is visible to whom any of these is allowed."""

GRANTABLE_ACTIONS = VISIBLE_ACTIONS | {Action.CAMERA_MANAGE, Action.CAMERA_SHARE}
"""Exactly these can be granted; the others come with a role. Who is granted `camera:share` may give on."""


PURPOSELESS_ACTIONS = frozenset({Action.CAMERA_MANAGE, Action.CAMERA_SHARE})
"""Granted actions that look at nothing. A grant's purposes do not bind them, only what is given on by it."""


class Effect(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Reason(StrEnum):
    """Why a decision came out as it did; stable, shown to callers and kept in the ledger."""

    GRANTED = "granted"
    ROLE = "role"
    NO_MATCHING_GRANT = "no_matching_grant"
    DENIED_BY_RULE = "denied_by_rule"
    GRANT_EXPIRED = "grant_expired"
    GRANT_NOT_YET_VALID = "grant_not_yet_valid"
    OUTSIDE_WINDOW = "outside_window"
    PURPOSE_NOT_ALLOWED = "purpose_not_allowed"
    OWN_GRANT = "own_grant"
    SHARED = "shared"
    NOT_SHARED = "not_shared"
    PARENT_REVOKED = "parent_revoked"
    DISPUTED = "disputed"
    NOT_IN_LEDGER = "not_in_ledger"
    FROZEN = "frozen"
    UNDERTAKING_REQUIRED = "undertaking_required"
    SECOND_FACTOR_REQUIRED = "second_factor_required"
    NOBODY_ON_DUTY = "nobody_on_duty"
    UNKNOWN_PRINCIPAL = "unknown_principal"
    PRINCIPAL_DISABLED = "principal_disabled"
    PRINCIPAL_EXPIRED = "principal_expired"
    UNKNOWN_RESOURCE = "unknown_resource"
    MALFORMED_RULE = "malformed_rule"
    STALE_REVISION = "stale_revision"
    INTERNAL_ERROR = "internal_error"


class SubjectKind(StrEnum):
    USER = "user"
    ROLE = "role"
    DEPARTMENT = "department"


class ObjectKind(StrEnum):
    CAMERA = "camera"
    GROUP = "group"
    TAG = "tag"
    DEPARTMENT = "department"
    INSTALLATION = "installation"


class Watermark(StrEnum):
    NONE = "none"
    VISIBLE = "visible"
    BURNED_IN = "burned-in"


class Obligations(msgspec.Struct, frozen=True, kw_only=True):
    """What the PEP must enforce on whoever uses an allowed decision.

    `max_concurrent`: how many sessions may run at once by the same grant.
    """

    watermark: Watermark = Watermark.VISIBLE
    max_duration_seconds: int | None = None
    max_height: int | None = None
    max_concurrent: int | None = None


class Subject(msgspec.Struct, frozen=True):
    kind: SubjectKind
    id: str


class Object(msgspec.Struct, frozen=True):
    kind: ObjectKind
    id: str


INSTALLATION = Object(ObjectKind.INSTALLATION, "")
"""Everything: what is asked about where no smaller object is (`audit:read`, `purpose:manage`)."""


class RoleAssignment(msgspec.Struct, frozen=True):
    """A role that a user holds. A role of department scope works in `department_id` and below it."""

    role: str
    department_id: str | None = None


class SharingMode(StrEnum):
    """How the owner shares a camera (共享方式)."""

    UNCONDITIONAL = "unconditional"
    CONDITIONAL = "conditional"
    NOT_SHARED = "not-shared"


class Sharing(msgspec.Struct, frozen=True, kw_only=True):
    """`departments`: those to which `unconditional` gives `live:view` without a grant, and those below them.

    `not-shared`: no grant of a media action serves anybody outside the owner's department and those below
    it. So is every camera from `until` on.

    `purposes`: for others no media action is allowed to anybody, of the owner's department or not; None means
    any, an empty set none.
    """

    mode: SharingMode = SharingMode.CONDITIONAL
    departments: tuple[str, ...] = ()
    until: datetime | None = None
    purposes: frozenset[str] | None = None

    @property
    def is_default(self) -> bool:
        """Whether it says no more than that there are grants."""
        return self.mode is SharingMode.CONDITIONAL and self.until is None and self.purposes is None


class WeeklyWindow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some hours of some days: `days` 1 (Monday) to 7, `start` and `end` as HH:MM, the interval half open.

    `end` may be 24:00; one that is not after `start` is on the next day.
    """

    days: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1, le=7)], ...], msgspec.Meta(min_length=1, max_length=7)
    ]
    start: Annotated[str, msgspec.Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9](?![\s\S])")]
    end: Annotated[str, msgspec.Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)(?![\s\S])")]


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The hours in which a grant is live, on the clocks of `zone` (a name of the IANA time zone database)."""

    zone: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    windows: Annotated[tuple[WeeklyWindow, ...], msgspec.Meta(min_length=1, max_length=32)]


class GrantRule(msgspec.Struct, frozen=True, kw_only=True):
    """A grant as the PDP reads it: typed fields only; no field is ever evaluated as code.

    `valid_from`/`valid_to` are aware UTC, the interval is half open; None means unbounded. `purposes`
    None means any purpose, an empty set none. A grant to a department reaches the users of the
    departments below it. An allowing grant never serves `granted_by`, the user who gave it.
    `parent`: the grant of `camera:share` by which he could give it, None if he could by office; it is live
    only while that one is, and where that one reaches.
    `void`: why a grant that was to allow does not, whatever its conditions; a denial is never void.
    """

    id: str
    subject: Subject
    object: Object
    actions: frozenset[Action]
    effect: Effect = Effect.ALLOW
    valid_from: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    valid_to: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    purposes: frozenset[str] | None = None
    obligations: Obligations = Obligations()
    granted_by: str | None = None
    schedule: Schedule | None = None
    parent: str | None = None
    void: Reason | None = None


class AccessRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One question to the PDP. `at` is aware UTC and comes from the caller: the PDP has no clock."""

    user_id: str
    action: Action
    object: Object
    at: datetime
    purpose: str | None = None
    min_revision: int = 0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The PDP's answer. `rule` is the id of the grant, or `role:NAME`, that decided; None if none did.

    `expires_at`, of an allow: when it ends by itself (the deciding grant's `valid_to`, the start of a denying
    one, or the end of the user's account, whichever is first), else None. Ask again then: another grant may
    take over. A deny has none.
    """

    effect: Effect
    reason: Reason
    rule: str | None
    revision: int
    obligations: Obligations = Obligations()
    expires_at: datetime | None = None

    @property
    def allowed(self) -> bool:
        return self.effect is Effect.ALLOW


class RuleMatch(msgspec.Struct, frozen=True, kw_only=True):
    """One rule that names the principal, the resource and the action of a request.

    `reason`: what it says if its conditions are met (granted, role, denied_by_rule, malformed_rule), else
    the first condition that is not.
    """

    rule: str
    effect: Effect
    subject: Subject
    object: Object
    reason: Reason


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, every rule that matched, and the rules that would have but for one condition."""

    decision: Decision
    matching: tuple[RuleMatch, ...]
    near_misses: tuple[RuleMatch, ...]
    owner_purposes: frozenset[str] | None = None
    """The owner's list, if it is why a near miss is one."""
