"""The description of the API: OpenAPI 3.1, with every refusal as a problem and both ways to say who asks.

`openapi.json` beside this file is what clients are made from. `python -m rlhf_cluster.service.openapi` writes it
anew; a test fails when it is not what the service gives.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from rlhf_cluster.service.auth import COOKIE, NEEDS
from rlhf_cluster.service.problems import MEDIA_TYPE
from rlhf_cluster.wire.access import Scope
from rlhf_cluster.wire.base import Problem

COMMITTED = Path(__file__).with_name("openapi.json")
WITHOUT_TOKEN = ("/healthz", "/readyz", "/api/v1/version", "/api/v1/auth/session")
VALIDATION = "#/components/schemas/HTTPValidationError"
"""What FastAPI would say of a 422; this service answers with problems."""


def install(app: FastAPI) -> None:
    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    app.openapi = described


def describe(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    parts = made.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs", {}) | {"Problem": problem}
    parts["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    }
    made["security"] = [{"token": []}, {"session": []}]
    scopes = scopes_of(app)
    for path, method, operation in _operations(made):
        _describe_refusals(operation["responses"])
        if path in WITHOUT_TOKEN:
            operation["security"] = []
        elif scope := scopes.get((path, method)):
            operation["security"] = [{"token": [scope]}, {"session": [scope]}]
    return made


def scopes_of(app: FastAPI) -> dict[tuple[str, str], Scope]:
    """By path and method, the scope without which nobody gets in; relays' operations have none of people's."""
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    return {
        (route.path_format, method.lower()): scope
        for route in routes
        for dependency in route.dependant.dependencies
        if (scope := getattr(dependency.call, NEEDS, None))
        for method in route.methods
    }


def _operations(made: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _describe_refusals(responses: dict[str, Any]) -> None:
    told = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if told.get("$ref") == VALIDATION:
        del responses["422"]
    responses["default"] = {
        "description": "A refusal or a failure: what is wrong, what is allowed and what to change.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def text_of(app: FastAPI) -> str:
    return json.dumps(app.openapi(), indent=1, sort_keys=True) + "\n"


def main() -> None:
    from rlhf_cluster.service.app import create_app
    from rlhf_cluster.service.settings import ServiceSettings

    with tempfile.TemporaryDirectory() as directory:
        app = create_app(ServiceSettings(data_dir=Path(directory)))
        COMMITTED.write_text(text_of(app), encoding="utf-8")
        app.state.service.db.close()
    sys.stdout.write(f"{COMMITTED} is written\n")


if __name__ == "__main__":
    main()
