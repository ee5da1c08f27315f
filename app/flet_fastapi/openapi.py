"""What `app.openapi()` says about the endpoints for plain HTTP: uploads, and the way back from a sign-in."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import fastapi

from .options import Options
from .uploads.urls import METHOD, PARAMETER

_UPLOAD_TEXTS = {
    201: "The file is new.",
    204: "The file has replaced one.",
    400: "The request, the file's name or its length is wrong.",
    401: "The URL has no signature.",
    403: "The signature is wrong, or the URL has expired.",
    404: "The app takes no uploads.",
    408: "The body came too slowly.",
    409: "The URL has been used or is in use, or the name is that of a directory.",
    411: "There is no Content-Length.",
    413: "The file is too large.",
    415: "The body is encoded, or is a form.",
    429: "Too many uploads: at once, or of this session.",
    503: "The store that the workers share does not answer.",
    507: "There is no room for the file.",
}
_CALLBACK_TEXTS = {
    200: "The sign-in is over; the page says how it went, or is the one that the app wants shown.",
    303: "The sign-in is over, and the app wants the browser to go to another page.",
    400: "The state is missing, unknown, expired, or was used before.",
    403: "The sign-in was started in another browser.",
    410: "The app's session has ended.",
    503: "The store that the workers share does not answer.",
}
_REFUSAL = {
    "type": "object",
    "required": ["error", "detail"],
    "additionalProperties": False,
    "properties": {
        "error": {"type": "string", "description": "A stable word."},
        "detail": {"type": "string", "description": "A sentence for people."},
    },
}


def describe(app: fastapi.FastAPI, options: Options) -> None:
    """Let `app.openapi()` describe the endpoints of a Flet app that is on `app`, beside the routes of its own."""
    paths = {f"/{options.upload_endpoint}": _upload(), f"/{options.oauth_endpoint}": _callback()}
    others = app.openapi

    def openapi() -> dict[str, Any]:
        schema = others()
        for path, methods in paths.items():
            schema.setdefault("paths", {}).setdefault(path, {}).update(deepcopy(methods))
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's way to change the description


def _upload() -> dict[str, Any]:
    return {
        METHOD.lower(): {
            "summary": "Upload one file",
            "description": "The URL is made by `page.get_upload_url()`, is signed, and works once.",
            "operationId": "flet_upload",
            "parameters": [_parameter(PARAMETER, "The signature.", required=True)],
            "requestBody": {
                "required": True,
                "description": "The file as it is.",
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            },
            "responses": {
                str(status): {"description": text, **({} if status < 300 else _json())}
                for status, text in _UPLOAD_TEXTS.items()
            },
        }
    }


def _callback() -> dict[str, Any]:
    return {
        "get": {
            "summary": "Come back from a sign-in",
            "description": "Where a provider sends the browser (RFC 6749, 4.1.2). Either `code` or `error` is given.",
            "operationId": "flet_oauth_callback",
            "parameters": [
                _parameter("state", "The state that the sign-in began with.", required=True),
                _parameter("code", "The provider's code."),
                _parameter("error", "Why the provider refused."),
                _parameter("error_description", "The same for people."),
            ],
            "responses": {
                str(status): {"description": text, **({} if status == 303 else _html())}
                for status, text in _CALLBACK_TEXTS.items()
            },
        }
    }


def _parameter(name: str, description: str, *, required: bool = False) -> dict[str, Any]:
    schema = {"type": "string"}
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


def _json() -> dict[str, Any]:
    return {"content": {"application/json": {"schema": deepcopy(_REFUSAL)}}}


def _html() -> dict[str, Any]:
    return {"content": {"text/html": {"schema": {"type": "string"}}}}
