"""A browser's side of the classic protocol, as much as it takes to see a page and click on it."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from html import unescape
from http.cookies import SimpleCookie
from typing import Any, Self
from urllib.parse import SplitResult, urljoin, urlsplit

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

_ENDPOINT = re.compile(r'<meta name="flet-websocket-endpoint-path" content="([^"]*)">')
_BASE = re.compile(r'<base href="([^"]*)">')
_STRUCTURE = frozenset({"i", "t", "p", "c", "at"})
_TEXTS = ("text", "value", "label", "title", "subtitle", "tooltip")
# A page with inlined images has some megabytes, one with more is no page.
_MAX_MESSAGE = 64 * 1024 * 1024

Control = dict[str, Any]


class Broken(Exception):
    """The app does not do what an app does; the text is for the operator."""


@dataclass(slots=True)
class Visitor:
    """One visit of the page at `url`.

    `via` is the address to connect to in place of the URL's own, and then the certificate is taken as it is.
    """

    url: str
    via: str | None = None
    timeout: float = 20.0
    controls: dict[str, Control] = field(default_factory=dict)
    _cookies: SimpleCookie = field(default_factory=SimpleCookie)
    _open: ExitStack = field(default_factory=ExitStack)
    _socket: ClientConnection | None = None

    def get(self, path: str = "") -> tuple[int, str]:
        """Status and text of a plain request.

        Raises:
            Broken: nobody answers.
        """
        parts = urlsplit(urljoin(self.url, path))
        connection = http.client.HTTPConnection(parts.netloc, timeout=self.timeout)
        connection.sock = self._connection(parts)
        try:
            connection.request("GET", parts.path or "/", headers={"Accept": "text/html,*/*", "Connection": "close"})
            response = connection.getresponse()
            for value in response.headers.get_all("Set-Cookie", []):
                self._cookies.load(value)
            return response.status, response.read(_MAX_MESSAGE).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise Broken(f"{parts.geturl()} gives no answer: {error or type(error).__name__}") from None
        finally:
            connection.close()

    def open(self, page: str) -> Self:
        """Open the websocket that `page` names, and register.

        Raises:
            Broken: the handshake or the registration is refused.
        """
        parts = urlsplit(websocket_url(self.url, page))
        # a page's origin has no path, and the scheme of plain requests
        origin = Origin(f"{urlsplit(self.url).scheme}://{parts.netloc}")
        cookie = "; ".join(f"{morsel.key}={morsel.value}" for morsel in self._cookies.values())
        try:
            self._socket = self._open.enter_context(
                connect(
                    f"ws://{parts.netloc}{parts.path}",  # the socket speaks TLS by itself, if any
                    sock=self._connection(parts),
                    origin=origin,
                    additional_headers={"Cookie": cookie} if cookie else None,
                    open_timeout=self.timeout,
                    max_size=_MAX_MESSAGE,
                    proxy=None,
                )
            )
        except (OSError, WebSocketException) as error:
            raise Broken(f"the websocket at {parts.path} is refused: {error or type(error).__name__}") from None
        self._send("registerWebClient", _registration(urlsplit(self.url).path))
        self.read_until(lambda: "page" in self.controls, self.timeout)
        if "page" not in self.controls:
            raise Broken("the websocket gives no answer to a browser that registers")
        return self

    def visit(self) -> Self:
        """See the page as it is when it has come to rest.

        Raises:
            Broken
        """
        status, page = self.get()
        if status != 200:
            raise Broken(f"{self.url} answers {status}")
        self.open(page).settle()
        return self

    def find(self, name: str) -> Control:
        """The first control that a person would call so: by key, text, label, tooltip or icon.

        Raises:
            LookupError
        """
        for control in self.controls.values():
            if name in names(control, self.controls):
                return control
        raise LookupError(f"there is no {name!r} among {sorted(self.texts())}")

    def texts(self) -> set[str]:
        """What can be read on the page."""
        return {control[name] for control in self.controls.values() for name in _TEXTS if control.get(name)}

    def enter(self, control: Control, text: str) -> None:
        """Type into a field."""
        control["value"] = text
        self._send("updateControlProps", {"props": [{"i": control["i"], "value": text}]})
        self._send("pageEventFromWeb", {"eventTarget": control["i"], "eventName": "change", "eventData": text})

    def click(self, control: Control) -> bool:
        """Click, and whether the page has changed because of it."""
        seen = self._send("pageEventFromWeb", {"eventTarget": control["i"], "eventName": "click", "eventData": ""})
        return self.read_until(lambda: self.controls != seen, 5.0)

    def settle(self, quiet: float = 0.5, most: float = 5.0) -> None:
        """Wait until nothing has come for `quiet` seconds; a page that never rests is taken as it is after `most`."""
        end = time.monotonic() + most
        while self._receive(min(quiet, end - time.monotonic())):
            if time.monotonic() > end:
                return

    def read_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition has come true in time."""
        end = time.monotonic() + seconds
        while not condition():
            if not self._receive(end - time.monotonic()):
                return condition()
        return True

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, action: str, payload: object) -> dict[str, Control]:
        """Send, and give the controls as they were."""
        assert self._socket is not None
        seen = {name: dict(control) for name, control in self.controls.items()}
        try:
            self._socket.send(json.dumps({"action": action, "payload": payload}))
        except WebSocketException as error:
            raise Broken(f"the websocket was closed: {error}") from None
        return seen

    def _receive(self, seconds: float) -> bool:
        """Take one message, and whether one came in time."""
        assert self._socket is not None
        try:
            message = json.loads(self._socket.recv(timeout=max(seconds, 0)))
            self._take(message["action"], message["payload"])
        except TimeoutError:
            return False
        except WebSocketException as error:
            raise Broken(f"the websocket was closed: {error}") from None
        return True

    def _take(self, action: str, payload: Any) -> None:
        match action:
            case "registerWebClient":
                if payload["error"]:
                    raise Broken(f"the app takes no visitor: {payload['error']}")
                self.controls = payload["session"]["controls"]
            case "sessionCrashed":
                raise Broken(f"the app failed: {payload['message']}")
            case "pageControlsBatch":
                for message in payload:
                    self._take(message["action"], message["payload"])
            case "addPageControls":
                for control in payload["controls"]:
                    self.controls[control["i"]] = control
            case "updateControlProps" | "appendControlProps":
                for props in payload["props"]:
                    changed = {name: value for name, value in props.items() if name not in _STRUCTURE}
                    self.controls.get(props["i"], {}).update(changed)
            case "cleanControl":
                for name in payload["ids"]:
                    self._forget(name, itself=False)
            case "removeControl":
                for name in payload["ids"]:
                    self._forget(name, itself=True)

    def _forget(self, name: str, itself: bool) -> None:
        for child in [other for other, control in self.controls.items() if control.get("p") == name]:
            self._forget(child, itself=True)
        if itself:
            self.controls.pop(name, None)

    def _connection(self, parts: SplitResult) -> socket.socket:
        secure = parts.scheme in ("https", "wss")
        host, port = parts.hostname or "localhost", parts.port or (443 if secure else 80)
        where = urlsplit(f"//{self.via}") if self.via else None
        address = (where.hostname or host, where.port or port) if where else (host, port)
        try:
            plain = socket.create_connection(address, self.timeout)
            return _tls(self.via is None).wrap_socket(plain, server_hostname=host) if secure else plain
        except OSError as error:
            raise Broken(f"nobody answers at {address[0]} port {address[1]}: {error}") from None


def websocket_url(url: str, page: str) -> str:
    """Where the page at `url` opens its websocket.

    Raises:
        Broken: it is not the page of a Flet app.
    """
    found = _ENDPOINT.search(page)
    if found is None:
        raise Broken(f"{url} is not the page of a Flet app")
    base = _BASE.search(page)
    place = urljoin(url, unescape(base[1])) if base else url
    return urljoin(place, unescape(found[1])).replace("http", "ws", 1)


def clickable(controls: dict[str, Control]) -> Iterator[Control]:
    """What a person could click on, in the page's order: buttons, and what says that it listens."""
    for control in controls.values():
        if (control["t"].endswith("button") or control.get("onclick") == "true") and _offered(control, controls):
            yield control


def names(control: Control, controls: dict[str, Control]) -> list[str]:
    """What a person could call it, the best name first."""
    inside = [child.get("value", "") for child in controls.values() if child.get("p") == control["i"]]
    key, text, label, tooltip, icon = (control.get(name, "") for name in ("key", "text", "label", "tooltip", "icon"))
    return [name for name in (key, text, label, *inside, tooltip, icon) if name]


def _offered(control: Control, controls: dict[str, Control]) -> bool:
    """Neither it nor anything around it is disabled or invisible."""
    around: Control | None = control
    while around is not None:
        if around.get("disabled") == "true" or around.get("visible") == "false":
            return False
        around = controls.get(around.get("p") or "")
    return True


def _tls(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _registration(route: str) -> dict[str, str]:
    return {
        "pageName": "",
        "pageRoute": route or "/",
        "pageWidth": "1280",
        "pageHeight": "720",
        "windowWidth": "",
        "windowHeight": "",
        "windowTop": "",
        "windowLeft": "",
        "isPWA": "false",
        "isWeb": "true",
        "isDebug": "false",
        "platform": "linux",
        "platformBrightness": "light",
        "media": '{"padding":{"top":0.0,"right":0.0,"bottom":0.0,"left":0.0}}',
        "sessionId": "",
    }
