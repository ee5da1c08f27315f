"""`roost health`: ask the internal listener of the server on this machine, as a container's health check does.

It runs every few seconds, so it imports next to nothing; that is why it reads its three variables itself.
"""

from __future__ import annotations

import http.client
import os
from pathlib import Path

_SECONDS = 4.0
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104


def ask(path: str) -> tuple[bool, str]:
    """Whether the answer to `path` is a good one, and what it says."""
    host = os.environ.get("ROOST_INTERNAL_HOST") or "127.0.0.1"
    port = os.environ.get("ROOST_INTERNAL_PORT") or "9000"
    try:
        connection = http.client.HTTPConnection(_ANYWHERE.get(host, host), int(port), timeout=_SECONDS)
        connection.request("GET", path, headers=_headers())
        response = connection.getresponse()
        return response.status == http.HTTPStatus.OK, response.read().decode(errors="replace").strip()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return False, f"{host}:{port} does not answer: {error}"


def _headers() -> dict[str, str]:
    file = os.environ.get("ROOST_INTERNAL_TOKEN_FILE")
    tokens = (Path(file).read_text() if file else os.environ.get("ROOST_INTERNAL_TOKEN", "")).replace(",", " ").split()
    return {"Authorization": f"Bearer {tokens[0]}", "Connection": "close"} if tokens else {"Connection": "close"}
