"""The OpenAPI 3.1 document, made from the route tables alone: what is not declared is not there."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.problems import ProblemDocument, codes
from gateway.web.routing import Access, Route

_PARAMETER = re.compile(r"\{(\w+)\}")
_REF = "#/components/schemas/{name}"


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The whole document as JSON-serializable values."""
    routes = list(routes)
    types = {
        kind
        for route in routes
        for kind in (route.body, route.answer, route.query, route.rehearsal)
        if kind is not None
    }
    ordered = [ProblemDocument, *sorted(types, key=lambda kind: kind.__name__)]
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    schema_of = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Custos",
            "version": version,
            "description": "Video resource sharing: every look has an owner, a purpose and a record.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "custos_login"},
            },
        },
        "x-problem-codes": codes(),
    }


def _operation(
    route: Route, schema_of: dict[Any, dict[str, Any]], components: dict[str, Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', route.path)}",
        "summary": route.summary,
        "x-access": str(route.access),
        "security": [] if route.access is Access.PUBLIC else [{"bearer": []}, {"cookie": []}],
        "parameters": _parameters(route, components),
        "responses": _responses(route, schema_of),
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[route.body]}},
        }
    if route.upload:
        operation["requestBody"] = {"required": True, "content": {kind: {} for kind in route.upload}}
    return operation


def _parameters(route: Route, components: dict[str, Any]) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(route.path)
    ]
    if route.query is not None:
        schema = components[route.query.__name__]
        parameters += [
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "schema": inner,
            }
            for name, inner in schema["properties"].items()
        ]
    return parameters


def _responses(route: Route, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    problem = {
        "description": "Refused; `code` says why",
        "content": {"application/problem+json": {"schema": schema_of[ProblemDocument]}},
    }
    if route.stream is not None:
        success: dict[str, Any] = {"description": "A stream", "content": {route.stream: {}}}
        return {"200": success, "default": problem}
    answers: dict[str, Any] = {"default": problem}
    if route.rehearsal is not None:
        answers["200"] = _answer("What would be, with dry_run", schema_of[route.rehearsal])
    if route.answer is None:
        return {"204": {"description": "Done"}, **answers}
    return {str(route.status): _answer("Done", schema_of[route.answer]), **answers}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
