"""Analysers, analyses, and their events: a page of them, or as they happen."""

from typing import Any

import msgspec
from aiohttp import web

from analytics.scenes import ANALYSERS
from gateway.analyses import Analysis, NewAnalysis
from gateway.events import Event
from gateway.forms import Identifier
from gateway.live_session import EndReason
from gateway.problems import Problem
from gateway.web.routing import API, DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Access, Call, Route, Sequence
from policies.access import Action

HEARTBEAT_SECONDS = 15.0


class Texts(msgspec.Struct, frozen=True):
    zh: str
    en: str


class AnalyserEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`parameters` is a JSON schema."""

    name: str
    description: Texts
    parameters: dict[str, Any]


class AnalyserList(msgspec.Struct, frozen=True):
    items: list[AnalyserEntry]


class AnalysisList(msgspec.Struct, frozen=True):
    items: list[Analysis]


class EventQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    camera: Identifier | None = None
    before: Sequence | None = None
    page_size: int = DEFAULT_PAGE_SIZE


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; `next_before` is the `before` of the next page."""

    items: list[Event]
    next_before: int | None


async def list_analysers(call: Call, _: None) -> AnalyserList:
    del call
    return AnalyserList(
        [
            AnalyserEntry(
                name=name,
                description=Texts(analyser.description_zh, analyser.description_en),
                parameters=msgspec.json.schema(analyser.parameters),
            )
            for name, analyser in ANALYSERS.items()
        ]
    )


async def list_analyses(call: Call, _: None) -> AnalysisList:
    visible = call.services.enforcement.visible_cameras(call.who.id)
    return AnalysisList(
        [
            analysis
            for analysis in call.services.analyses.all()
            if analysis.user == call.who.id or analysis.camera in visible
        ]
    )


async def create_analysis(call: Call, body: NewAnalysis) -> Analysis:
    purpose = await call.services.purposes.check(body.purpose, Action.FRAMES_CONSUME, call.who)
    return await call.services.analyses.create(call.who, body, call.circumstances(purpose))


async def delete_analysis(call: Call, _: None) -> None:
    analysis = call.services.analyses.get(call.path("id"))
    session = call.services.live.get(analysis.session or "") if analysis is not None else None
    if analysis is None or session is None:
        raise Problem("not_found", call.path("id"))
    if analysis.user == call.who.id:
        call.services.live.end(session.id, EndReason.ENDED, by=call.who.id)
        return
    await call.services.sessions.end_other(call.who, session, call.circumstances())


async def list_events(call: Call, _: None) -> EventPage:
    query = call.query(EventQuery)
    if not 1 <= query.page_size <= MAX_PAGE_SIZE:
        raise Problem("invalid_field", f"page_size: 1 to {MAX_PAGE_SIZE}")
    watchable = call.services.enforcement.watchable_cameras(call.who.id)
    wanted = watchable if query.camera is None else watchable & {query.camera}
    found = await call.services.events.newest(wanted, query.before, query.page_size + 1)
    more = len(found) > query.page_size
    items = found[: query.page_size]
    return EventPage(items=items, next_before=items[-1].id if more else None)


async def stream_events(call: Call, _: None) -> web.StreamResponse:
    """Server-sent events (WHATWG HTML §9.2); a comment every 15 s keeps proxies from closing it."""
    who, enforcement = call.who, call.services.enforcement

    def may_see(camera_id: str) -> bool:
        return any(
            enforcement.is_allowed_for_some_purpose(who.id, camera_id, action)
            for action in (Action.LIVE_VIEW, Action.FRAMES_CONSUME)
        )

    with call.services.events.listen(may_see) as listener:
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        await response.prepare(call.request)
        await response.write(b": listening\n\n")
        while True:
            event = await listener.next(HEARTBEAT_SECONDS)
            if not await call.services.authentication.is_valid(who):
                break
            if event is None:
                await response.write(b": still here\n\n")
                continue
            data = msgspec.json.encode(event).decode()
            await response.write(f"id: {event.id}\nevent: analysis\ndata: {data}\n\n".encode())
    return response


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/analysers",
        handler=list_analysers,
        access=Access.AUTHENTICATED,
        summary="The analysers and their parameters",
        answer=AnalyserList,
    ),
    Route(
        method="GET",
        path=f"{API}/analyses",
        handler=list_analyses,
        access=Access.AUTHENTICATED,
        summary="The analyses on cameras that the caller may see",
        answer=AnalysisList,
    ),
    Route(
        method="POST",
        path=f"{API}/analyses",
        handler=create_analysis,
        access=Action.FRAMES_CONSUME,
        summary="Run an analyser on a camera",
        body=NewAnalysis,
        answer=Analysis,
        status=201,
    ),
    Route(
        method="DELETE",
        path=f"{API}/analyses/{{id}}",
        handler=delete_analysis,
        access=Action.SESSION_END,
        summary="End an analysis: one's own, or one on a camera of one's department",
    ),
    Route(
        method="GET",
        path=f"{API}/events",
        handler=list_events,
        access=Access.AUTHENTICATED,
        summary="Events on cameras that the caller may watch, the newest first",
        query=EventQuery,
        answer=EventPage,
    ),
    Route(
        method="GET",
        path=f"{API}/events/stream",
        handler=stream_events,
        access=Access.AUTHENTICATED,
        summary="Events as they happen (server-sent events)",
        stream="text/event-stream",
    ),
)
