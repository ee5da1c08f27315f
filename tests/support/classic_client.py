"""A browser's side of the classic protocol, without a browser.

`ClassicClient` keeps the same mirror of the page as Flet 0.24's web client does (its `reducers.dart`), including what
that client leaves out: `invokeMethod` and `sessionCrashed` inside a batch are ignored, and counted in `ignored`.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable, Mapping
from http.cookies import SimpleCookie
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin

Control = dict[str, Any]
Message = dict[str, Any]

PAGE_SIZE = {"pageWidth": "1280", "pageHeight": "720", "windowWidth": "", "windowHeight": ""}
STRUCTURE = {"i", "t", "p", "c", "at"}
# An origin that is found out from the websocket's own address.
OWN = "own"


def dumps(action: str, payload: object) -> str:
    return json.dumps({"action": action, "payload": payload}, separators=(",", ":"))


def register_message(session_id: str = "", *, page_name: str = "", route: str = "/", **fields: str) -> str:
    """The first frame of a browser; `fields` replace single members of its payload."""
    payload = {
        "pageName": page_name,
        "pageRoute": route,
        **PAGE_SIZE,
        "windowTop": "",
        "windowLeft": "",
        "isPWA": "false",
        "isWeb": "true",
        "isDebug": "false",
        "platform": "linux",
        "platformBrightness": "light",
        "media": '{"padding":{"top":0.0,"right":0.0,"bottom":0.0,"left":0.0}}',
        "sessionId": session_id,
    }
    return dumps("registerWebClient", payload | fields)


def event_message(target: str, name: str, data: str = "") -> str:
    return dumps("pageEventFromWeb", {"eventTarget": target, "eventName": name, "eventData": data})


def update_message(control_id: str, props: Mapping[str, str]) -> str:
    return dumps("updateControlProps", {"props": [{"i": control_id, **props}]})


def method_result_message(method_id: str, result: str | None = None, error: str | None = None) -> str:
    answer = {"method_id": method_id, "result": result, "error": error}
    return event_message("page", "invoke_method_result", json.dumps(answer))


def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Mirror:
    """The controls as the browser has them after the messages applied so far."""

    def __init__(self) -> None:
        self.controls: dict[str, Control] = {}
        self.ignored = 0
        self.unknown: list[Message] = []

    def apply(self, action: str, payload: Any, *, batched: bool = False) -> None:
        match action:
            case "pageControlsBatch":
                for message in payload:
                    self.apply(message["action"], message["payload"], batched=True)
            case "addPageControls":
                self._add(payload["controls"])
                self._remove(payload.get("trimIDs") or [])
            case "updateControlProps":
                self._update(payload["props"])
            case "appendControlProps":
                self._append(payload["props"])
            case "cleanControl":
                self._clean(payload["ids"])
            case "removeControl":
                self._remove(payload["ids"])
            case _ if batched:
                self.ignored += 1
            case _:
                self.unknown.append({"action": action, "payload": payload})

    def _add(self, added: list[Control]) -> None:
        for control in added:
            known = self.controls.get(control["i"])
            self.controls[control["i"]] = {**control, "c": known["c"] if known else list(control["c"])}
            # Only the topmost controls of a message are hung on their parent; the others come in their parent's "c".
            if known is None and control["p"] == added[0]["p"]:
                self._hang(control)

    def _hang(self, control: Control) -> None:
        children: list[str] = self.controls[control["p"]]["c"]
        at = control.get("at")
        children.insert(len(children) if at is None else int(at), control["i"])

    def _update(self, all_props: list[Control]) -> None:
        for props in all_props:
            if control := self.controls.get(props["i"]):
                control.update({name: value for name, value in props.items() if name not in STRUCTURE})

    def _append(self, all_props: list[Control]) -> None:
        for props in all_props:
            if control := self.controls.get(props["i"]):
                for name, value in props.items():
                    if name not in STRUCTURE:
                        control[name] = control.get(name, "") + value

    def _clean(self, ids: list[str]) -> None:
        for control_id in ids:
            self._forget_descendants(control_id)
            if control := self.controls.get(control_id):
                control["c"] = []

    def _remove(self, ids: list[str]) -> None:
        for control_id in ids:
            self._forget_descendants(control_id)
            control = self.controls.pop(control_id, None)
            parent = self.controls.get(control["p"]) if control else None
            if parent and control_id in parent["c"]:
                parent["c"].remove(control_id)

    def _forget_descendants(self, control_id: str) -> None:
        for child in self.controls.get(control_id, {}).get("c", []):
            self._forget_descendants(child)
            self.controls.pop(child, None)


class ClassicClient:
    """One websocket of one browser; `async with ClassicClient(url) as client` opens and closes it.

    Frames are read in the background: `controls` is the page as of now, `messages` all that came. A method call of the
    page is answered by `methods[name](arguments)` where there is one, else it stays in `method_calls`.
    `origin` is that of a page of the app itself unless given; None sends none, as native clients do.
    `compression="deflate"` offers `permessage-deflate; client_max_window_bits`, as browsers do.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        origin: str | None = OWN,
        compression: str | None = "deflate",
        timeout: float = 30.0,
    ) -> None:
        self.url = url
        self.headers = dict(headers or {})
        self.cookies = dict(cookies or {})
        self.origin = origin
        self.compression = compression
        self.timeout = timeout
        self.mirror = Mirror()
        self.session_id = ""
        self.register_error = ""
        self.crash = ""
        self.messages: list[Message] = []
        self.frames = 0
        self.method_calls: list[Message] = []
        self.methods: dict[str, Callable[[dict[str, str]], str | None]] = {}
        self.socket: ClientConnection
        self._reading = asyncio.Event()
        self._changed = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    # The connection

    async def connect(self) -> Self:
        """Open the websocket; a refused handshake raises `websockets.InvalidStatus`."""
        headers = dict(self.headers)
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self.socket = await connect(
            self.url,
            additional_headers=headers,
            origin=self._origin(self.url),
            compression=self.compression,
            ssl=_any_certificate() if self.url.startswith("wss:") else None,
            max_size=None,
            max_queue=4,
            proxy=None,
        )
        self._keep_cookies()
        self._reading.set()
        self._reader = asyncio.create_task(self._read(), name="classic client reader")
        return self

    async def reconnect(self, **changes: Any) -> "ClassicClient":
        """Another connection of the same browser: same headers, cookies and credential; not yet registered."""
        settings: dict[str, Any] = {
            "headers": self.headers,
            "cookies": self.cookies,
            "origin": self.origin,
            "compression": self.compression,
            "timeout": self.timeout,
        }
        other = ClassicClient(self.url, **(settings | changes))
        other.session_id = self.session_id
        other.methods = self.methods
        return await other.connect()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close politely and wait for the server's answer."""
        self.resume_reading()
        await self.socket.close(code, reason)
        await self._join()

    async def abort(self) -> None:
        """Drop the TCP connection (a reset, no close frame), as a browser does that loses its network."""
        self.socket.transport.abort()
        self.resume_reading()
        await self._join()

    async def wait_closed(self) -> int:
        """Wait until the server has closed; the close code (1006 if there was no close frame)."""
        async with asyncio.timeout(self.timeout):
            await self._join()
            await self.socket.wait_closed()
        return self.close_code or 1006

    @property
    def close_code(self) -> int | None:
        return self.socket.close_code

    @property
    def close_reason(self) -> str | None:
        return self.socket.close_reason

    @property
    def open(self) -> bool:
        return self._reader is not None and not self._reader.done()

    def stop_reading(self) -> None:
        """Leave what comes (but for the next frame) in the socket, as a browser whose tab is suspended."""
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()

    def lose_network(self) -> None:
        """Hear nothing from now on, pings neither, without the server's learning of it."""
        self.socket.transport.pause_reading()  # type: ignore[attr-defined]

    def find_network(self) -> None:
        self.socket.transport.resume_reading()  # type: ignore[attr-defined]

    # What a browser sends

    async def send_raw(self, frame: str | bytes) -> None:
        await self.socket.send(frame)

    async def send(self, action: str, payload: object) -> None:
        await self.send_raw(dumps(action, payload))

    async def register(self, session_id: str | None = None, **fields: str) -> Self:
        """Register and wait for the answer. `session_id` defaults to what the server gave last (resume)."""
        credential = self.session_id if session_id is None else session_id
        answered = sum(message["action"] == "registerWebClient" for message in self.messages)
        await self.send_raw(register_message(credential, **fields))
        await self.wait_for(lambda client: client.count("registerWebClient") > answered)
        return self

    async def event(self, target: str, name: str, data: str = "") -> None:
        await self.send_raw(event_message(target, name, data))

    async def click(self, control_id: str) -> None:
        await self.event(control_id, "click")

    async def update(self, control_id: str, **props: str) -> None:
        """Property changes of a control, as the web client reports them; applied to the own mirror as well."""
        self.mirror.apply("updateControlProps", {"props": [{"i": control_id, **props}]})
        await self.send_raw(update_message(control_id, props))

    async def change(self, control_id: str, value: str) -> None:
        """What typing into a field sends: the new value, then the `change` event."""
        await self.update(control_id, value=value)
        await self.event(control_id, "change", value)

    async def answer(self, method_id: str, result: str | None = None, error: str | None = None) -> None:
        await self.send_raw(method_result_message(method_id, result, error))

    # What it sees

    @property
    def controls(self) -> dict[str, Control]:
        return self.mirror.controls

    @property
    def page(self) -> Control:
        return self.controls["page"]

    def all(self, kind: str | None = None, **attributes: str) -> list[Control]:
        """Controls of a type (`"text"`, `"elevatedbutton"`) whose attributes have these values."""
        return [
            control
            for control in self.controls.values()
            if kind in (None, control["t"]) and all(control.get(name) == value for name, value in attributes.items())
        ]

    def one(self, kind: str | None = None, **attributes: str) -> Control:
        """The only such control; `LookupError` if there is none or more than one."""
        found = self.all(kind, **attributes)
        if len(found) != 1:
            raise LookupError(f"{len(found)} controls match {kind} {attributes}")
        return found[0]

    def count(self, action: str) -> int:
        return sum(message["action"] == action for message in self.messages)

    async def wait_for(self, predicate: Callable[["ClassicClient"], object], timeout: float | None = None) -> Self:
        """Wait until `predicate(self)` is true, asked again after each frame.

        Raises `TimeoutError`, or `ConnectionError` if the connection ends first.
        """
        async with asyncio.timeout(self.timeout if timeout is None else timeout):
            while not predicate(self):
                if not self.open:
                    await self._join()  # what broke the mirror says more than "closed"
                    raise ConnectionError(f"closed while waiting: {self.close_code} {self.close_reason}")
                self._changed.clear()
                await self._changed.wait()
        return self

    async def wait_for_control(self, kind: str | None = None, **attributes: str) -> Control:
        await self.wait_for(lambda client: client.all(kind, **attributes))
        return self.all(kind, **attributes)[0]

    # Inside

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _origin(self, url: str) -> Origin | None:
        """The `Origin` header of a page that opens a websocket at `url`."""
        own = "/".join(url.split("/")[:3]).replace("ws", "http", 1) if self.origin is OWN else self.origin
        return None if own is None else Origin(own)

    def _keep_cookies(self) -> None:
        assert self.socket.response is not None
        for header in self.socket.response.headers.get_all("Set-Cookie"):
            self.cookies.update({name: morsel.value for name, morsel in SimpleCookie(header).items()})

    async def _read(self) -> None:
        try:
            while True:
                await self._reading.wait()
                frame = await self.socket.recv()
                self.frames += 1
                await self._take(json.loads(frame))
                self._changed.set()
        except ConnectionClosed:
            pass
        finally:
            asyncio.get_running_loop().call_soon(self._changed.set)

    async def _take(self, message: Message) -> None:
        self.messages.append(message)
        payload = message["payload"]
        match message["action"]:
            case "registerWebClient":
                self._registered(payload)
            case "sessionCrashed":
                self.crash = payload["message"]
            case "invokeMethod":
                await self._invoked(payload)
            case action:
                self.mirror.apply(action, payload)

    def _registered(self, payload: Any) -> None:
        self.register_error = payload["error"]
        if not self.register_error:
            self.session_id = payload["session"]["id"]
            self.mirror.controls = payload["session"]["controls"]

    async def _invoked(self, call: Message) -> None:
        method = self.methods.get(call["methodName"])
        if method is None:
            self.method_calls.append(call)
        else:
            with contextlib.suppress(ConnectionClosed):
                await self.answer(call["methodId"], method(call["arguments"]))

    async def _join(self) -> None:
        if self._reader is not None:
            await asyncio.wait([self._reader])
            self._reader.result()
