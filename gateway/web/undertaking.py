"""What everybody undertakes before he sees a picture."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.undertakings import Undertaking, UndertakingText
from gateway.web.routing import API, Access, Call, Route
from policies.access import Action


class UndertakingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The newest version. `accepted`: by the caller; of a job, by who is responsible for it."""

    version: int
    text: UndertakingText
    accepted: bool


class Acceptance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)]


class NewUndertaking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: UndertakingText


async def show(call: Call, _: None) -> UndertakingAnswer:
    undertaking = await call.services.undertakings.current()
    return UndertakingAnswer(
        version=undertaking.version,
        text=undertaking.text,
        accepted=call.services.enforcement.has_undertaken(call.who),
    )


async def accept(call: Call, body: Acceptance) -> None:
    await call.services.undertakings.accept(call.who, body.version, call.circumstances())


async def publish(call: Call, body: NewUndertaking) -> Undertaking:
    return await call.services.undertakings.publish(call.who, body.text, call.circumstances())


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/undertaking",
        handler=show,
        access=Access.AUTHENTICATED,
        summary="The undertaking, and whether the caller has accepted it",
        answer=UndertakingAnswer,
    ),
    Route(
        method="POST",
        path=f"{API}/undertaking/accept",
        handler=accept,
        access=Access.AUTHENTICATED,
        summary="Accept the undertaking of this version",
        body=Acceptance,
    ),
    Route(
        method="POST",
        path=f"{API}/undertakings",
        handler=publish,
        access=Action.SECURITY_MANAGE,
        summary="Publish another version, which everybody has to accept before the next picture",
        body=NewUndertaking,
        answer=Undertaking,
        status=201,
    ),
)
