"""The API's description holds what the routes are, and nothing else."""

import json
import re

from support.controls import open_city

from gateway.problems import codes
from gateway.services import Services
from gateway.web import ROUTES, VERSION, application
from gateway.web.openapi import document

PORTAL = {("GET", "/"), ("HEAD", "/"), ("GET", "/{path}"), ("HEAD", "/{path}")}


async def test_every_route_of_aiohttp_is_described_and_the_reverse(tmp_path):
    async with open_city(tmp_path, furnish=False) as city:
        assert isinstance(city.services, Services)
        app = application(city.services, None)
    served = {(route.method, route.resource.canonical) for route in app.router.routes()}
    paths = document(ROUTES, VERSION)["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert served - PORTAL == described
    assert served & PORTAL == PORTAL


async def test_the_document_is_answered_and_complete(tmp_path):
    async with open_city(tmp_path, furnish=False) as city:
        status, headers, text = await city.request("GET", "/openapi.json")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    found = json.loads(text)
    assert found == json.loads(json.dumps(document(ROUTES, VERSION)))
    assert found["openapi"] == "3.1.0"
    assert found["x-problem-codes"] == codes()


def test_every_reference_resolves():
    found = document(ROUTES, VERSION)
    schemas = found["components"]["schemas"]
    references = set(_references(found))
    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in schemas, reference


def test_operations_are_complete_and_unique():
    found = document(ROUTES, VERSION)
    operations = [operation for methods in found["paths"].values() for operation in methods.values()]
    identifiers = [operation["operationId"] for operation in operations]
    assert len(set(identifiers)) == len(identifiers) == len(ROUTES)
    for operation in operations:
        assert operation["summary"]
        assert "default" in operation["responses"]
        names = [(parameter["in"], parameter["name"]) for parameter in operation["parameters"]]
        assert len(set(names)) == len(names)
    for path, methods in found["paths"].items():
        for operation in methods.values():
            in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert in_path == set(re.findall(r"\{(\w+)\}", path))


def test_no_answer_is_described_with_a_secret():
    schemas = document(ROUTES, VERSION)["components"]["schemas"]
    named = {
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field in schema.get("properties", ())
        if any(word in field for word in ("password", "secret", "token", "ticket"))
    }
    assert named == {
        # asked for
        "Credentials.password",
        "NewCamera.password",
        "CameraChange.password",
        "NewUser.password",
        "UserChange.password",
        "SignOn.password",
        "TicketQuery.ticket",
        "FlvQuery.ticket",
        "MjpegQuery.ticket",
        # answered once, to whom it belongs
        "CreatedUser.password",
        "IssuedKey.password",
        "LoginAnswer.token",
        "OfferedFactor.secret",
        "Media.ticket",
        "Ticket.ticket",
        # whether there is one; places in a list
        "CameraConnection.has_password",
        "CameraQuery.page_token",
        "GrantQuery.page_token",
        "DisputeQuery.page_token",
        "ViewersQuery.page_token",
        "CamerasQuery.page_token",
        "ViewersPage.next_page_token",
        "ViewedCamerasPage.next_page_token",
        "UserQuery.page_token",
        "CameraPage.next_page_token",
        "UserPage.next_page_token",
        "GrantPage.next_page_token",
        "DisputePage.next_page_token",
        "PageRequest.token",
        "PageAnswer.next_token",
    }


def _references(value):
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
