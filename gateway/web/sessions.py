"""Viewing sessions: declare why, get an address, watch."""

from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta

from gateway.catalogue import Ref
from gateway.enforcement import StatedPurpose
from gateway.forms import Identifier
from gateway.live_session import EndReason, LiveSession, OpenedSession
from gateway.principals import actor_of
from gateway.problems import Problem
from gateway.purposes import DeclaredPurpose
from gateway.waiting import MAX_WAIT_SECONDS
from gateway.web.routing import API, Access, Call, Route
from policies.access import MEDIA_ACTIONS, Action, Object, ObjectKind, Obligations


class NewSession(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`action`: `live:view`, `live:snapshot` or `frames:consume`. `stream`: sub is the smaller one.

    `wait_s`: how long to wait for a place when a limit is full.
    """

    camera: Identifier
    purpose: DeclaredPurpose | None = None
    action: Action = Action.LIVE_VIEW
    stream: Literal["main", "sub"] = "main"
    wait_s: Annotated[float, Meta(ge=0, le=MAX_WAIT_SECONDS)] = 0


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses with the ticket in them: each opens the media once, within 30 s."""

    flv: str | None
    fmp4: str | None
    ws: str | None
    ws_flv: str | None
    hls: str | None
    mjpeg: str | None
    rtsp: str | None
    ticket: str

    def __repr__(self) -> str:
        return "Media(...)"


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """What is drawn over the picture."""

    display_name: str
    department: str


class SessionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`confirm_by`: the picture ends then unless the viewer confirms that he looks; None: he need not."""

    id: str
    camera: Ref
    media: Media
    expires_at: datetime | None
    confirm_by: datetime | None
    obligations: Obligations
    viewer: Viewer


class SessionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`on_duty`: of a wall's session, the person who answers for it."""

    id: str
    camera: str
    stream: str
    user: Ref
    on_duty: Ref | None
    department: Ref
    action: Action
    purpose: StatedPurpose
    priority: int
    state: str
    protocol: str | None
    opened_at: datetime
    expires_at: datetime | None
    confirm_by: datetime | None
    bytes_sent: int


class Confirmation(msgspec.Struct, frozen=True):
    """When to confirm again; None: never."""

    confirm_by: datetime | None


class SessionList(msgspec.Struct, frozen=True):
    items: list[SessionEntry]


async def open_session(call: Call, body: NewSession) -> SessionAnswer:
    if body.action not in MEDIA_ACTIONS - {Action.PTZ_CONTROL}:
        raise Problem("invalid_field", f"action: {body.action} opens no session")
    purpose = await call.services.purposes.check(body.purpose, body.action, call.who)
    opened = await call.services.sessions.open(
        call.who, body.camera, body.action, call.circumstances(purpose), body.stream, body.wait_s
    )
    return _answer(call, opened)


async def renew_ticket(call: Call, _: None) -> SessionAnswer:
    opened = await call.services.tickets.renew(call.who, call.path("id"), call.circumstances())
    return _answer(call, opened)


async def confirm(call: Call, _: None) -> Confirmation:
    return Confirmation(await call.services.sessions.confirm(call.who, call.path("id")))


async def list_sessions(call: Call, _: None) -> SessionList:
    return SessionList([_entry(session) for session in call.services.live.all() if _may_see(call, session)])


async def end_session(call: Call, _: None) -> None:
    session = call.services.live.get(call.path("id"))
    if session is None:
        raise Problem("not_found", call.path("id"))
    if session.user_id == call.who.id:
        call.services.live.end(session.id, EndReason.ENDED, by=call.who.id)
        return
    await call.services.sessions.end_other(call.who, session, call.circumstances())


def _may_see(call: Call, session: LiveSession) -> bool:
    if session.user_id == call.who.id:
        return True
    camera = Object(ObjectKind.CAMERA, session.camera_id)
    return call.services.enforcement.decide(call.who.id, Action.SESSION_READ, camera).allowed


def _answer(call: Call, opened: OpenedSession) -> SessionAnswer:
    base = call.services.web.base_url(call.request.host)
    rtsp = call.services.web.rtsp_url(call.request.host)
    secret = f"?ticket={quote(opened.ticket)}"
    path = f"/media/{opened.id}"
    actor = actor_of(call.who)
    watching = opened.action is Action.LIVE_VIEW
    return SessionAnswer(
        id=opened.id,
        camera=Ref(opened.camera_id, opened.camera_name),
        media=Media(
            flv=f"{base}{path}/live.flv{secret}" if watching else None,
            fmp4=f"{base}{path}/live.mp4{secret}" if watching else None,
            ws=f"ws{base.removeprefix('http')}{path}/ws{secret}" if watching else None,
            ws_flv=f"ws{base.removeprefix('http')}{path}/ws.flv{secret}" if watching else None,
            hls=f"{base}{path}/index.m3u8{secret}" if watching else None,
            mjpeg=f"{base}{path}/live.mjpeg{secret}" if watching else None,
            rtsp=f"{rtsp}/live/{opened.id}{secret}" if watching and rtsp else None,
            ticket=opened.ticket,
        ),
        expires_at=opened.expires_at,
        confirm_by=opened.confirm_by,
        obligations=opened.obligations,
        viewer=Viewer(display_name=actor["actor_name"], department=actor["unit_name"]),
    )


def _entry(session: LiveSession) -> SessionEntry:
    return SessionEntry(
        id=session.id,
        camera=session.camera_id,
        stream=session.stream,
        user=Ref(session.user_id, session.user_name),
        on_duty=None if session.duty is None else Ref(session.duty.person_id, session.duty.person_name),
        department=Ref(session.unit_id, session.unit_name),
        action=session.action,
        purpose=session.purpose.stated(),
        priority=session.priority,
        state=session.state.value,
        protocol=session.protocol,
        opened_at=session.opened_at,
        expires_at=session.expires_at,
        confirm_by=session.confirm_by,
        bytes_sent=session.bytes_sent,
    )


ROUTES = (
    Route(
        method="POST",
        path=f"{API}/sessions",
        handler=open_session,
        access=Action.LIVE_VIEW,
        summary="Open a viewing session for a declared purpose",
        body=NewSession,
        answer=SessionAnswer,
        status=201,
    ),
    Route(
        method="POST",
        path=f"{API}/sessions/{{id}}/ticket",
        handler=renew_ticket,
        access=Action.LIVE_VIEW,
        summary="Another ticket for one's own session: for a reconnect or another container",
        answer=SessionAnswer,
    ),
    Route(
        method="POST",
        path=f"{API}/sessions/{{id}}/confirm",
        handler=confirm,
        access=Access.AUTHENTICATED,
        summary="The viewer of one's own session still looks",
        answer=Confirmation,
    ),
    Route(
        method="GET",
        path=f"{API}/sessions",
        handler=list_sessions,
        access=Access.AUTHENTICATED,
        summary="Who watches what now: one's own, and those on cameras of one's department",
        answer=SessionList,
    ),
    Route(
        method="DELETE",
        path=f"{API}/sessions/{{id}}",
        handler=end_session,
        access=Action.SESSION_END,
        summary="End a session: one's own, or one on a camera of one's department",
    ),
)
