"""The purposes that a use may be declared for, and how a query declares one."""

import msgspec

from gateway.enforcement import Purpose
from gateway.forms import Line, Text
from gateway.purposes import DeclaredPurpose, PurposeChange, PurposeEntry
from gateway.web.routing import API, Access, Call, Route
from policies.access import Action


class PurposeQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`all`: those that others may declare too, for who allows them."""

    all: bool = False


class PurposeList(msgspec.Struct, frozen=True):
    items: list[PurposeEntry]


class DeclaredInQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A purpose in an address: `purpose` is a code of `/purposes`. Without one the answer is 422."""

    purpose: Line = ""
    reference: Line | None = None
    note: Text | None = None


async def declared(call: Call, query: DeclaredInQuery, action: Action) -> Purpose:
    """The purpose that a query declares. Raises the problems of `Purposes.check`."""
    said = DeclaredPurpose(code=query.purpose, reference=query.reference, note=query.note)
    return await call.services.purposes.check(said, action, call.who)


async def list_purposes(call: Call, _: None) -> PurposeList:
    purposes = call.services.purposes
    if call.query(PurposeQuery).all:
        return PurposeList(await purposes.managed(call.who))
    return PurposeList(await purposes.declarable(call.who))


async def create_purpose(call: Call, body: PurposeEntry) -> PurposeEntry:
    return await call.services.purposes.create(call.who, body, call.circumstances())


async def change_purpose(call: Call, body: PurposeChange) -> PurposeEntry:
    return await call.services.purposes.change(call.who, call.path("code"), body, call.circumstances())


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/purposes",
        handler=list_purposes,
        access=Access.AUTHENTICATED,
        summary="The purposes that the caller may declare",
        query=PurposeQuery,
        answer=PurposeList,
    ),
    Route(
        method="POST",
        path=f"{API}/purposes",
        handler=create_purpose,
        access=Action.PURPOSE_MANAGE,
        summary="Add a purpose to the list",
        body=PurposeEntry,
        answer=PurposeEntry,
        status=201,
    ),
    Route(
        method="PATCH",
        path=f"{API}/purposes/{{code}}",
        handler=change_purpose,
        access=Action.PURPOSE_MANAGE,
        summary="Change a purpose, or take it out of use",
        body=PurposeChange,
        answer=PurposeEntry,
    ),
)
