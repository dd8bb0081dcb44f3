"""Whether the policy is what the ledger knows; what owners and security administrators do where it is not."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.forms import END, Identifier
from gateway.freeze import Confirmed
from gateway.policy_file_acceptance import PolicyFileStatus
from gateway.web.routing import API, Access, Call, Route
from policies.access import Action


class PolicyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`frozen_since` None: no grant is frozen. `unconfirmed`: grants that wait for their owners.

    `void`: how many rows of each kind count for nothing, as the last start and the patrol since found.
    """

    frozen_since: datetime | None
    unconfirmed: int
    file: PolicyFileStatus
    void: dict[str, int]


class Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    department_id: Identifier


class FileAcceptance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}" + END)]


async def policy_status(call: Call, _: None) -> PolicyStatus:
    services = call.services
    frozen_since, unconfirmed = await services.freeze.status()
    return PolicyStatus(
        frozen_since=frozen_since,
        unconfirmed=unconfirmed,
        file=services.policy_file.status,
        void=services.freeze.void,
    )


async def confirm_policy(call: Call, body: Confirmation) -> Confirmed:
    return await call.services.freeze.confirm(call.who, body.department_id, call.circumstances())


async def accept_policy_file(call: Call, body: FileAcceptance) -> PolicyFileStatus:
    return await call.services.policy_file.accept(call.who, body.sha256, call.circumstances())


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/policy",
        handler=policy_status,
        access=Access.AUTHENTICATED,
        summary="Whether grants are frozen, and whether the policy is what the ledger knows",
        answer=PolicyStatus,
    ),
    Route(
        method="POST",
        path=f"{API}/policy/confirm",
        handler=confirm_policy,
        access=Action.CAMERA_SHARE,
        summary="Say of the frozen grants on a department's cameras that they stand",
        body=Confirmation,
        answer=Confirmed,
    ),
    Route(
        method="POST",
        path=f"{API}/policy/file/accept",
        handler=accept_policy_file,
        access=Action.SECURITY_MANAGE,
        summary="Let the roles of a changed policies file count",
        body=FileAcceptance,
        answer=PolicyFileStatus,
    ),
)
