"""What `app.openapi()` says about the endpoints for plain HTTP: uploads, and the way back from a sign-in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import fastapi

from .options import Options
from .uploads.urls import METHOD, PARAMETER

_UPLOAD_TEXTS = {
    201: "The file is new.",
    204: "The file has replaced one.",
    400: "The request, the file's name or its length is wrong; or, as text, the `Host` is none.",
    401: "The URL has no signature.",
    403: "The signature is wrong, or the URL has expired.",
    404: "The app takes no uploads.",
    405: "The method is another one, and none that reads.",
    408: "The body came too slowly.",
    409: "The URL has been used or is in use, or the name is that of a directory.",
    411: "There is no Content-Length.",
    413: "The file is too large.",
    415: "The body is encoded, or is a form.",
    421: "`FLET_ALLOWED_HOSTS` does not name this host.",
    429: "Too many uploads: at once, or of this session.",
    503: "The store that the workers share does not answer.",
    507: "There is no room for the file.",
}
_CALLBACK_TEXTS = {
    200: "The sign-in is over; the page says how it went, or is the one that the app wants shown.",
    303: "The sign-in is over, and the app wants the browser to go to another page.",
    400: "The state is missing, unknown, expired, or was used before; or, as text, the `Host` is none.",
    403: "The sign-in was started in another browser.",
    405: "The method is none that reads.",
    410: "The app's session has ended.",
    421: "`FLET_ALLOWED_HOSTS` does not name this host.",
    503: "The store that the workers share does not answer.",
}
# Reading what is not an endpoint's is left to the web client, whose pages may have the same path.
_CLIENT_TEXTS = {
    200: "The page, for those whose `Accept` names HTML.",
    206: "A part of it.",
    304: "It has not changed.",
    400: "The `Host` is none.",
    404: "This is no page to what was asked for: a script, an image, anything.",
    406: "No coding of it is acceptable.",
    412: "It has changed.",
    416: "It has no such part.",
    421: "`FLET_ALLOWED_HOSTS` does not name this host.",
}
# These answers are the door's to a wrong `Host`, before the endpoint is asked: 400 can be both.
_OF_THE_DOOR = (400, 421)
_REFUSAL = {
    "type": "object",
    "required": ["error", "detail"],
    "additionalProperties": False,
    "properties": {
        "error": {"type": "string", "description": "A stable word."},
        "detail": {"type": "string", "description": "A sentence for people."},
    },
}
_JSON = {"application/json": {"schema": _REFUSAL}}
_HTML = {"text/html": {"schema": {"type": "string"}}}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}


def describe(app: fastapi.FastAPI, options: Options) -> None:
    """Let `app.openapi()` describe the endpoints of a Flet app that is on `app`, beside the routes of its own."""
    paths = {options.upload_path: _upload(), f"/{options.oauth_endpoint}": _callback()}
    others = app.openapi

    def openapi() -> dict[str, Any]:
        schema = others()
        own = schema.get("paths", {})
        # routes of the application's own go before the endpoints
        described = {path: {**deepcopy(methods), **own.get(path, {})} for path, methods in paths.items()}
        return {**schema, "paths": {**own, **described}}

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
            "responses": _responses(_UPLOAD_TEXTS, _JSON, empty=(201, 204), allow=METHOD),
        },
        **_client("upload", "get", "head"),
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
            "responses": _responses(_CALLBACK_TEXTS, _HTML, empty=(303, 405), allow="GET"),
        },
        **_client("oauth_callback", "head"),
    }


def _client(name: str, *methods: str) -> dict[str, Any]:
    """Operations that only look: what the web client has at this path."""
    return {
        method: {
            "summary": "Go to a page of the app",
            "operationId": f"flet_{name}_page_{method}",
            "responses": {
                **_responses({200: _CLIENT_TEXTS[200], 206: _CLIENT_TEXTS[206]}, _HTML),
                **_responses({status: text for status, text in _CLIENT_TEXTS.items() if status > 206}, _TEXT, (304,)),
            },
        }
        for method in methods
    }


def _responses(
    texts: Mapping[int, str], content: Mapping[str, Any], empty: Sequence[int] = (), allow: str = ""
) -> dict[str, Any]:
    return {str(status): _response(status, text, content, empty, allow) for status, text in texts.items()}


def _response(status: int, text: str, content: Mapping[str, Any], empty: Sequence[int], allow: str) -> dict[str, Any]:
    response: dict[str, Any] = {"description": text}
    if status == 405:
        schema = {"type": "string", "const": allow}
        response["headers"] = {"Allow": {"description": "The endpoint's method.", "required": True, "schema": schema}}
    if status not in empty:
        own = {} if status == 421 else content
        response["content"] = deepcopy({**own, **(_TEXT if status in _OF_THE_DOOR else {})})
    return response


def _parameter(name: str, description: str, *, required: bool = False) -> dict[str, Any]:
    schema = {"type": "string"}
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}
