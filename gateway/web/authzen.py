"""The OpenID AuthZEN Authorization API 1.0 over HTTP (its HTTPS JSON binding).

A denial is a 200 with `decision` false; status codes speak of the request alone, as problem documents. The
caller's `X-Request-ID` is answered by the middleware, as on all routes.
"""

import msgspec

from gateway.authzen_entities import (
    ActionResults,
    ActionSearch,
    Evaluation,
    EvaluationAnswer,
    Evaluations,
    EvaluationsAnswer,
    ResourceResults,
    ResourceSearch,
    SubjectResults,
    SubjectSearch,
)
from gateway.web.routing import Access, Call, Route

_ACCESS = "/access/v1"


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """Where the decision point is. The specification asks for https, which TLS or `public_url` make it."""

    policy_decision_point: str
    access_evaluation_endpoint: str
    access_evaluations_endpoint: str
    search_subject_endpoint: str
    search_resource_endpoint: str
    search_action_endpoint: str


async def metadata(call: Call, _: None) -> Metadata:
    base = call.services.web.base_url(call.request.host)
    return Metadata(
        policy_decision_point=base,
        access_evaluation_endpoint=f"{base}{_ACCESS}/evaluation",
        access_evaluations_endpoint=f"{base}{_ACCESS}/evaluations",
        search_subject_endpoint=f"{base}{_ACCESS}/search/subject",
        search_resource_endpoint=f"{base}{_ACCESS}/search/resource",
        search_action_endpoint=f"{base}{_ACCESS}/search/action",
    )


async def evaluate(call: Call, body: Evaluation) -> EvaluationAnswer:
    return call.services.authzen.evaluate(call.who.id, body)


async def evaluate_all(call: Call, body: Evaluations) -> EvaluationsAnswer:
    return call.services.authzen.evaluate_all(call.who.id, body)


async def search_subjects(call: Call, body: SubjectSearch) -> SubjectResults:
    return call.services.authzen.subjects(call.who.id, body)


async def search_resources(call: Call, body: ResourceSearch) -> ResourceResults:
    return await call.services.authzen.resources(call.who.id, body)


async def search_actions(call: Call, body: ActionSearch) -> ActionResults:
    return call.services.authzen.actions(call.who.id, body)


ROUTES = (
    Route(
        method="GET",
        path="/.well-known/authzen-configuration",
        handler=metadata,
        access=Access.PUBLIC,
        summary="Where the policy decision point answers (AuthZEN)",
        answer=Metadata,
    ),
    Route(
        method="POST",
        path=f"{_ACCESS}/evaluation",
        handler=evaluate,
        access=Access.AUTHENTICATED,
        summary="Whether a subject may do an action with a resource (AuthZEN); not recorded",
        body=Evaluation,
        answer=EvaluationAnswer,
        misshapen="bad_request",
    ),
    Route(
        method="POST",
        path=f"{_ACCESS}/evaluations",
        handler=evaluate_all,
        access=Access.AUTHENTICATED,
        summary="Several evaluations at once (AuthZEN)",
        body=Evaluations,
        answer=EvaluationsAnswer,
        misshapen="bad_request",
    ),
    Route(
        method="POST",
        path=f"{_ACCESS}/search/subject",
        handler=search_subjects,
        access=Access.AUTHENTICATED,
        summary="Who may do an action with a resource (AuthZEN)",
        body=SubjectSearch,
        answer=SubjectResults,
        misshapen="bad_request",
    ),
    Route(
        method="POST",
        path=f"{_ACCESS}/search/resource",
        handler=search_resources,
        access=Access.AUTHENTICATED,
        summary="With which resources a subject may do an action (AuthZEN)",
        body=ResourceSearch,
        answer=ResourceResults,
        misshapen="bad_request",
    ),
    Route(
        method="POST",
        path=f"{_ACCESS}/search/action",
        handler=search_actions,
        access=Access.AUTHENTICATED,
        summary="What a subject may do with a resource (AuthZEN)",
        body=ActionSearch,
        answer=ActionResults,
        misshapen="bad_request",
    ),
)
