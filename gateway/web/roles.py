"""Roles: the policies file's, and those made here."""

import msgspec

from gateway.roles import NewRole, RoleEntry
from gateway.web.routing import API, Access, Call, Route
from policies.access import Action


class RoleList(msgspec.Struct, frozen=True):
    items: list[RoleEntry]


async def list_roles(call: Call, _: None) -> RoleList:
    return RoleList(call.services.roles.all())


async def create_role(call: Call, body: NewRole) -> RoleEntry:
    return await call.services.roles.create(call.who, body, call.circumstances())


async def delete_role(call: Call, _: None) -> None:
    await call.services.roles.remove(call.who, call.path("name"), call.circumstances())


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/roles",
        handler=list_roles,
        access=Access.AUTHENTICATED,
        summary="The roles and what they carry",
        answer=RoleList,
    ),
    Route(
        method="POST",
        path=f"{API}/roles",
        handler=create_role,
        access=Action.USER_MANAGE,
        summary="Make a role; it cannot be changed afterwards",
        body=NewRole,
        answer=RoleEntry,
        status=201,
    ),
    Route(
        method="DELETE",
        path=f"{API}/roles/{{name}}",
        handler=delete_role,
        access=Action.USER_MANAGE,
        summary="Remove a role that was made here and that nobody holds",
    ),
)
