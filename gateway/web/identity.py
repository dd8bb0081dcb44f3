"""Log in, log out, who am I."""

from datetime import datetime
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.authentication import Principal
from gateway.catalogue import Ref
from gateway.forms import Name
from gateway.web.middleware import COOKIE, json_answer, refuse_cross_site
from gateway.web.routing import API, Access, Call, Route


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`cookie`: answer with an HttpOnly cookie and no token (the portal)."""

    username: Name
    password: Annotated[str, Meta(min_length=1, max_length=1024)]
    cookie: bool = False

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"


class Me(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    username: str
    display_name: str
    department: Ref
    kind: str
    roles: list[str]
    locale: str | None


class LoginAnswer(msgspec.Struct, frozen=True, kw_only=True):
    token: str | None
    expires_at: datetime
    user: Me


def me_of(principal: Principal) -> Me:
    return Me(
        id=principal.id,
        username=principal.username,
        display_name=principal.display_name,
        department=Ref(principal.department_id, principal.department_name),
        kind=principal.kind,
        roles=sorted({held.role for held in principal.roles}),
        locale=principal.locale,
    )


async def login(call: Call, body: Credentials) -> web.Response:
    if body.cookie:
        refuse_cross_site(call.request)
    logged_in = await call.services.authentication.login(
        body.username, body.password, call.remote, call.request_id
    )
    answer = LoginAnswer(
        token=None if body.cookie else logged_in.token,
        expires_at=logged_in.expires_at,
        user=me_of(logged_in.principal),
    )
    response = json_answer(answer, headers={"Cache-Control": "no-store"})
    if body.cookie:
        response.set_cookie(
            COOKIE,
            logged_in.token,
            expires=logged_in.expires_at.strftime("%a, %d %b %Y %H:%M:%S GMT"),
            path="/",
            httponly=True,
            secure=call.services.web.is_https,
            samesite="Strict",
        )
    return response


async def logout(call: Call, _: None) -> web.Response:
    await call.services.authentication.logout(call.who, call.remote, call.request_id)
    response = web.Response(status=204)
    response.del_cookie(COOKIE, path="/")
    return response


async def me(call: Call, _: None) -> Me:
    return me_of(call.who)


ROUTES = (
    Route(
        method="POST",
        path=f"{API}/login",
        handler=login,
        access=Access.PUBLIC,
        summary="Log in with user name and password",
        body=Credentials,
        answer=LoginAnswer,
    ),
    Route(
        method="POST", path=f"{API}/logout", handler=logout, access=Access.AUTHENTICATED, summary="Log out"
    ),
    Route(
        method="GET",
        path=f"{API}/me",
        handler=me,
        access=Access.AUTHENTICATED,
        summary="Who the caller is",
        answer=Me,
    ),
)
