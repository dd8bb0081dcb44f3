"""How a viewing session stands: for players that nobody tells why they end."""

from gateway.standing import Standing
from gateway.web.routing import API, Access, Call, Route


async def read_standing(call: Call, _: None) -> Standing:
    return await call.services.standings.of(call.who.id, call.path("id"))


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/sessions/{{id}}",
        handler=read_standing,
        access=Access.AUTHENTICATED,
        summary="How a session stands; for ten minutes after its end, why it ended and which unit ended it",
        answer=Standing,
    ),
)
