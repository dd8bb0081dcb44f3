"""Duty at video walls."""

import msgspec

from gateway.duty import DutyEntry, SignOn
from gateway.web.routing import API, Access, Call, Route


class DutyList(msgspec.Struct, frozen=True):
    items: list[DutyEntry]


async def sign_on(call: Call, body: SignOn) -> DutyEntry:
    return await call.services.duties.sign_on(call.who, body, call.remote, call.request_id)


async def list_duties(call: Call, _: None) -> DutyList:
    return DutyList(await call.services.duties.list_for(call.who))


async def sign_off(call: Call, _: None) -> None:
    await call.services.duties.sign_off(call.who)


ROUTES = (
    Route(
        method="POST",
        path=f"{API}/duty",
        handler=sign_on,
        access=Access.AUTHENTICATED,
        summary="Sign on at a wall, or take over from who is on duty; by the wall's log-in",
        body=SignOn,
        answer=DutyEntry,
        status=201,
    ),
    Route(
        method="GET",
        path=f"{API}/duty",
        handler=list_duties,
        access=Access.AUTHENTICATED,
        summary="Who is on duty where: at the wall that asks, or at those whose sessions the caller may read",
        answer=DutyList,
    ),
    Route(
        method="DELETE",
        path=f"{API}/duty",
        handler=sign_off,
        access=Access.AUTHENTICATED,
        summary="Sign off: the wall's pictures end",
    ),
)
