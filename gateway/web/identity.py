"""Log in, log out, who am I, and the second factor that proves it."""

from datetime import datetime
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.catalogue import Ref
from gateway.clock import from_micros
from gateway.enrolment import OfferedFactor, RecoveryCodes
from gateway.forms import Name
from gateway.principals import Principal
from gateway.second_factor import MAX_CODE_LENGTH
from gateway.undertakings import UndertakingStatus
from gateway.web.middleware import COOKIE, json_answer, refuse_cross_site
from gateway.web.routing import API, Access, Call, Route
from policies.access import Action

Code = Annotated[str, Meta(min_length=1, max_length=MAX_CODE_LENGTH)]


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`totp`: a code of the second factor, six digits or a recovery code. `cookie`: answer with an HttpOnly
    cookie and no token (the portal).
    """

    username: Name
    password: Annotated[str, Meta(min_length=1, max_length=1024)]
    totp: Code | None = None
    cookie: bool = False

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"


class GivenCode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: Code

    def __repr__(self) -> str:
        return "GivenCode(...)"


class NoFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class OnDuty(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    person_name: str
    ends_at: datetime


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """`must_enrol`: nothing else is open before a second factor is set up."""

    id: str
    username: str
    display_name: str
    department: Ref
    kind: str
    roles: list[str]
    locale: str | None
    second_factor: bool
    must_enrol: bool
    undertaking: UndertakingStatus
    on_duty: OnDuty | None


class LoginAnswer(msgspec.Struct, frozen=True, kw_only=True):
    token: str | None
    expires_at: datetime
    must_enrol: bool
    user: Me


def me_of(call: Call, principal: Principal) -> Me:
    duty = principal.on_duty
    return Me(
        id=principal.id,
        username=principal.username,
        display_name=principal.display_name,
        department=Ref(principal.department_id, principal.department_name),
        kind=principal.kind,
        roles=sorted({held.role for held in principal.roles}),
        locale=principal.locale,
        second_factor=principal.has_second_factor,
        must_enrol=principal.must_enrol,
        undertaking=call.services.undertakings.status(principal),
        on_duty=None
        if duty is None
        else OnDuty(id=duty.id, person_name=duty.person_name, ends_at=from_micros(duty.ends_at)),
    )


async def login(call: Call, body: Credentials) -> web.Response:
    if body.cookie:
        refuse_cross_site(call.request)
    logged_in = await call.services.authentication.login(
        body.username, body.password, body.totp, call.remote, call.request_id
    )
    answer = LoginAnswer(
        token=None if body.cookie else logged_in.token,
        expires_at=logged_in.expires_at,
        must_enrol=logged_in.principal.must_enrol,
        user=me_of(call, logged_in.principal),
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
    return me_of(call, call.who)


async def offer_second_factor(call: Call, _: NoFields) -> OfferedFactor:
    return await call.services.enrolment.offer(call.who)


async def confirm_second_factor(call: Call, body: GivenCode) -> RecoveryCodes:
    return await call.services.enrolment.confirm(call.who, body.code, call.remote, call.request_id)


async def remove_second_factor(call: Call, body: GivenCode) -> None:
    await call.services.enrolment.remove(call.who, body.code, call.remote, call.request_id)


async def reset_second_factor(call: Call, _: None) -> None:
    user = await call.services.directory.user(call.path("id"))
    await call.services.enrolment.reset(call.who, user, call.circumstances())


ROUTES = (
    Route(
        method="POST",
        path=f"{API}/login",
        handler=login,
        access=Access.PUBLIC,
        summary="Log in with user name, password and second factor; ends an earlier log-in",
        body=Credentials,
        answer=LoginAnswer,
    ),
    Route(
        method="POST",
        path=f"{API}/logout",
        handler=logout,
        access=Access.AUTHENTICATED,
        summary="Log out",
        is_before_enrolment=True,
    ),
    Route(
        method="GET",
        path=f"{API}/me",
        handler=me,
        access=Access.AUTHENTICATED,
        summary="Who the caller is",
        answer=Me,
        is_before_enrolment=True,
    ),
    Route(
        method="POST",
        path=f"{API}/me/second-factor",
        handler=offer_second_factor,
        access=Access.AUTHENTICATED,
        summary="A secret for an authenticator app; without effect until it is confirmed",
        body=NoFields,
        answer=OfferedFactor,
        is_before_enrolment=True,
    ),
    Route(
        method="POST",
        path=f"{API}/me/second-factor/confirm",
        handler=confirm_second_factor,
        access=Access.AUTHENTICATED,
        summary="Give a code of the app: from then on each log-in needs one; answers the recovery codes",
        body=GivenCode,
        answer=RecoveryCodes,
        is_before_enrolment=True,
    ),
    Route(
        method="DELETE",
        path=f"{API}/me/second-factor",
        handler=remove_second_factor,
        access=Access.AUTHENTICATED,
        summary="Take the own second factor away, with a code of it",
        body=GivenCode,
        is_before_enrolment=True,
    ),
    Route(
        method="DELETE",
        path=f"{API}/users/{{id}}/second-factor",
        handler=reset_second_factor,
        access=Action.USER_MANAGE,
        summary="Reset another's second factor who has lost it; ends his log-ins",
    ),
)
