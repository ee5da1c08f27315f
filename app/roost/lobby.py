"""The internal listener while the app is imported, which keeps the event loop from answering."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from .health import Answer, Door, Health

_LOOK_SECONDS = 0.1
# Whoever asks is on this machine or on a private network, and has nothing to send but a few headers.
_ASK_SECONDS = 1.0
_MAX_REQUEST = 8192


class Lobby:
    """A thread that answers as long as nobody else of this server does: a sibling that serves can say more."""

    def __init__(self, listener: socket.socket, health: Health, door: Door) -> None:
        self._listener = listener
        self._health = health
        self._door = door
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="roost-lobby", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            if self._health.board.serving():
                self._ended.wait(_LOOK_SECONDS)
            elif select.select([self._listener], [], [], _LOOK_SECONDS)[0]:
                with suppress(OSError):  # another worker was faster, or the client is gone
                    self._serve(*self._listener.accept())

    def _serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        with connection:
            connection.settimeout(_ASK_SECONDS)
            request = b""
            while b"\r\n\r\n" not in request and len(request) < _MAX_REQUEST:
                if not (part := connection.recv(_MAX_REQUEST)):
                    return
                request += part
            connection.sendall(self._answer(request.decode("latin-1"), peer[0]))
            connection.shutdown(socket.SHUT_WR)

    def _answer(self, request: str, peer: str) -> bytes:
        first, *lines = request.partition("\r\n\r\n")[0].split("\r\n")
        method, target = [*first.split(" "), "", ""][:2]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path = target.partition("?")[0]
        answer = self._door.refusal(self._health, method, path, peer, headers.get("authorization", ""))
        return _encoded(answer or self._health.answer(path), with_body=method != "HEAD")


def _encoded(answer: Answer, *, with_body: bool) -> bytes:
    head = f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\nconnection: close\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in answer.fields())
    return head.encode() + b"\r\n" + (answer.body if with_body else b"")
