"""Users."""

import msgspec

from gateway.account_entries import CreatedUser, IssuedKey, NewUser, User, UserChange
from gateway.store.identifiers import fold_username
from gateway.web.routing import API, Access, Call, Page, Route
from policies.access import Action


class UserQuery(Page, frozen=True, kw_only=True):
    """`q`: part of the user name or the display name."""

    q: str = ""


class UserPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[User]
    next_page_token: str | None


async def list_users(call: Call, _: None) -> UserPage:
    query = call.query(UserQuery)
    size = query.size()
    found = await call.services.directory.users(
        call.who, query.q[:200], fold_username(query.page_token or ""), size
    )
    more = len(found) > size
    return UserPage(items=found[:size], next_page_token=found[size - 1].username if more else None)


async def create_user(call: Call, body: NewUser) -> CreatedUser:
    return await call.services.accounts.create(call.who, body, call.circumstances())


async def read_user(call: Call, _: None) -> User:
    return await call.services.directory.visible_user(call.who, call.path("id"))


async def issue_key(call: Call, _: None) -> IssuedKey:
    user = await call.services.directory.user(call.path("id"))
    return await call.services.accounts.issue_key(call.who, user, call.circumstances())


async def change_user(call: Call, body: UserChange) -> User:
    user = await call.services.directory.user(call.path("id"))
    return await call.services.accounts.change(call.who, user, body, call.circumstances())


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/users",
        handler=list_users,
        access=Access.AUTHENTICATED,
        summary="The accounts that the caller may see",
        query=UserQuery,
        answer=UserPage,
    ),
    Route(
        method="POST",
        path=f"{API}/users",
        handler=create_user,
        access=Action.USER_MANAGE,
        summary="Create an account; a generated password is answered once",
        body=NewUser,
        answer=CreatedUser,
        status=201,
    ),
    Route(
        method="GET",
        path=f"{API}/users/{{id}}",
        handler=read_user,
        access=Access.AUTHENTICATED,
        summary="An account that the caller may see; of a job, who answers for it and what it does",
        answer=User,
    ),
    Route(
        method="POST",
        path=f"{API}/users/{{id}}/key",
        handler=issue_key,
        access=Action.USER_MANAGE,
        summary="A new key for a job, answered once; the old one opens nothing any more",
        answer=IssuedKey,
        status=201,
    ),
    Route(
        method="PATCH",
        path=f"{API}/users/{{id}}",
        handler=change_user,
        access=Action.USER_MANAGE,
        summary="Change an account; disabling it ends its pictures",
        body=UserChange,
        answer=User,
    ),
)
