"""Why an upload is refused, and the answer that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

# Of a code that HTTP does not have, but every access log knows: the client went away (nginx).
CLIENT_GONE = 499
# On every answer of the endpoint.
DOOR_HEADERS: Mapping[str, str] = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

_STATUS: Mapping[str, int] = {
    "bad_request": 400,
    "bad_name": 400,
    "incomplete": 400,
    "no_signature": 401,
    "bad_signature": 403,
    "expired": 403,
    "uploads_off": 404,
    "method_not_allowed": 405,
    "too_slow": 408,
    "already_used": 409,
    "in_progress": 409,
    "name_is_taken": 409,
    "length_required": 411,
    "too_large": 413,
    "unsupported_encoding": 415,
    "too_many_uploads": 429,
    "session_uploads": 429,
    "session_files": 429,
    "session_bytes": 429,
    "client_gone": CLIENT_GONE,
    "unavailable": 503,
    "no_space": 507,
    "quota": 507,
    "storage": 507,
}


class UploadRefused(HTTPException):
    """An upload that was not taken; nothing of it is left.

    `error` is a stable word, `text` a sentence for people. In an endpoint of a plain `fastapi.FastAPI` FastAPI makes
    the answer; the endpoint of `app()` answers with `response()`.
    """

    def __init__(self, error: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        self.error = error
        self.text = text
        super().__init__(_STATUS[error], headers={**DOOR_HEADERS, **(headers or {})})
        # FastAPI puts whatever `detail` is into the answer's "detail"
        self.detail: Any = {"error": error, "detail": text}

    def response(self) -> Response:
        """The JSON answer: `error` and `detail`."""
        return JSONResponse(self.detail, self.status_code, self.headers)

    def close(self) -> None:
        """Let the connection end with the answer: what else comes in on it is not wanted."""
        self.headers = {**(self.headers or {}), "Connection": "close"}
