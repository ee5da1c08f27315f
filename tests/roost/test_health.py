from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from pydantic import SecretStr

from flet_fastapi.health import Part
from roost.board import Board, State
from roost.health import Door, Health, Internal
from roost.lobby import Lobby

PATHS = ("/livez", "/readyz", "/startupz", "/slots", "/metrics")
TOKEN = "tOk3n-of-a-Prometheus-elsewhere"


async def metrics(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"numbers"})


async def ask(
    health: Health, path: str, *, method: str = "GET", peer: str | None = "127.0.0.1", tokens: tuple[str, ...] = (),
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "client": peer and (peer, 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    door = Door([SecretStr(token) for token in tokens])
    await Internal(health, door, metrics)(scope, None, send)  # type: ignore[arg-type]
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


def make(**state: Any) -> Health:
    return Health(**{"slot": 1, "board": Board(3), "loaded": True, **state})


@pytest.mark.parametrize(
    ("state", "status", "bad"),
    [
        ({}, 200, None), ({"loaded": False}, 503, "app"), ({"draining": True}, 503, "worker"),
        ({"full": "no room"}, 503, "room"),
    ],
)  # fmt: skip
async def test_ready_is_who_has_the_app_does_not_drain_and_has_room(
    state: dict[str, Any], status: int, bad: str | None
) -> None:
    found, _, text = await ask(make(**state), "/readyz")
    body = json.loads(text)
    assert found == status
    assert [name for name, part in body["parts"].items() if not part["ok"]] == ([bad] if bad else [])
    assert body["worker"] == 1
    assert body["status"] == ("unavailable" if bad else "ready")


@pytest.mark.parametrize("bad", ["store", "uploads"])
async def test_what_sessions_can_do_without_only_degrades(bad: str) -> None:
    async def parts() -> list[Part]:
        return [Part(name, name != bad, "gone" if name == bad else "") for name in ("store", "uploads")]

    status, _, text = await ask(make(parts=parts), "/readyz")
    body = json.loads(text)
    assert (status, body["status"], body["parts"][bad]) == (200, "degraded", {"ok": False, "reason": "gone"})


async def test_alive_is_who_answers() -> None:
    async def parts() -> list[Part]:
        raise AssertionError("liveness looks at nothing")

    for state in ({}, {"loaded": False}, {"draining": True}, {"full": "no room"}):
        assert (await ask(make(parts=parts, **state), "/livez"))[0] == 200


async def test_started_is_who_has_the_app() -> None:
    assert (await ask(make(loaded=False), "/startupz"))[0] == 503
    assert (await ask(make(full="no room"), "/startupz"))[0] == 200


async def test_slots_are_a_port_for_each_worker_there_should_be() -> None:
    health = make(slot_port=8100)
    assert (await ask(health, "/slots"))[2] == b"8100\n8101\n8102\n"
    health.board.slots = 1
    assert (await ask(health, "/slots"))[2] == b"8100\n"
    assert (await ask(make(), "/slots"))[2] == b""


@pytest.mark.parametrize("path", ["/", "/x", "/livez/", "/LIVEZ", "/metrics/x", "//livez", "/livez%2f", "", "/healthz"])
async def test_there_is_nothing_else(path: str) -> None:
    for headers in ({}, {"authorization": f"Bearer {TOKEN}"}):
        assert (await ask(make(), path, tokens=(TOKEN,), **headers))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_nothing_can_be_changed(method: str) -> None:
    assert (await ask(make(), "/livez", method=method))[0] == 405


async def test_head_is_answered_without_a_body() -> None:
    status, headers, body = await ask(make(), "/readyz", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 10


KEYS = [
    # peer, Authorization: let in
    ("127.0.0.1", None, True), ("127.9.9.9", None, True), ("::1", None, True), ("::ffff:127.0.0.1", None, True),
    ("10.0.0.5", None, False), (None, None, False), ("2001:db8::1", None, False), ("127.0.0.1.example", None, False),
    ("10.0.0.5", f"Bearer {TOKEN}", True), ("10.0.0.5", f"bearer  {TOKEN} ", True),
    ("10.0.0.5", "Bearer second-tOk3n-0123", True), ("10.0.0.5", f"Basic {TOKEN}", False),
    ("10.0.0.5", TOKEN, False), ("10.0.0.5", "Bearer ", False), ("10.0.0.5", f"Bearer {TOKEN}x", False),
    ("10.0.0.5", f"Bearer {TOKEN[:-1]}", False), ("10.0.0.5", "Bearer é", False),
]  # fmt: skip


@pytest.mark.parametrize(("peer", "authorization", "inside"), KEYS)
@pytest.mark.parametrize("path", PATHS)
async def test_from_elsewhere_a_token_is_needed(
    peer: str | None, authorization: str | None, inside: bool, path: str
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    status, found, _ = await ask(make(), path, peer=peer, tokens=(TOKEN, "second-tOk3n-0123"), **headers)
    assert status == (200 if inside else 401)
    assert ("www-authenticate" in found) is not inside


async def test_without_a_token_everybody_who_gets_here_is_answered() -> None:
    assert (await ask(make(), "/metrics", peer="10.0.0.5"))[2] == b"numbers"


async def test_answers_are_not_kept() -> None:
    assert (await ask(make(), "/readyz"))[1]["cache-control"] == "no-store"


# --- while the app is imported ---------------------------------------------------------------------------------------


def request(port: int, text: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(text.encode())
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()


@pytest.mark.parametrize(
    ("path", "status"),
    [("/livez", 200), ("/readyz", 503), ("/startupz", 503), ("/metrics", 503), ("/slots", 200), ("/x", 404)],
)
def test_the_lobby_answers_while_the_app_is_imported(path: str, status: int) -> None:
    health = make(loaded=False, slot_port=8100)
    with socket.create_server(("127.0.0.1", 0)) as listener, Lobby(listener, health, Door(())):
        answer = request(listener.getsockname()[1], f"GET {path}?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize("text", ["\r\n\r\n", "GET\r\n\r\n", "\x00" * 9000, "GET /livez HTTP/1.1\r\n:\r\n\r\n"])
def test_the_lobby_survives_whatever_comes(text: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Lobby(listener, make(loaded=False), Door(())):
        port = listener.getsockname()[1]
        request(port, text)
        assert request(port, "GET /livez HTTP/1.1\r\n\r\n").startswith("HTTP/1.1 200 ")


def test_the_lobby_leaves_the_listener_to_a_sibling_that_serves() -> None:
    health = make(loaded=False)
    health.board[0] = State.READY
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Lobby(listener, health, Door(())),
        socket.create_connection(listener.getsockname(), timeout=0.5) as connection,
    ):
        connection.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)


# --- the board -------------------------------------------------------------------------------------------------------


def test_the_board_knows_who_serves() -> None:
    board = Board(3)
    assert (board.slots, board.booted, board.serving()) == (3, False, 0)
    board[0], board[1], board[2] = State.READY, State.FULL, State.DRAINING
    assert (board.booted, board.serving(), board.serving(besides=1)) == (True, 2, 1)
    board[0] = board[1] = State.NONE
    assert (board.booted, board.serving()) == (True, 0)


def test_a_workers_state_is_what_it_can_do() -> None:
    states = [make(loaded=False).state, make().state, make(full="x").state, make(full="x", draining=True).state]
    assert states == [State.STARTING, State.READY, State.FULL, State.DRAINING]
