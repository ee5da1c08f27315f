"""The *classic* generation: JSON text frames and `flet_core.Page`, as in flet-core 0.24."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from itertools import groupby
from threading import Lock, get_ident
from typing import Any
from urllib.parse import urlsplit

import orjson
from flet_core import Control, ControlEvent, Page, SnackBar, Text
from flet_core.connection import Connection
from flet_core.page import PageDisconnectedException
from flet_core.protocol import (
    Command,
    PageCommandResponsePayload,
    PageCommandsBatchResponsePayload,
)
from flet_core.pubsub import PubSubHub

from ..errors import FletFastAPIError, InvalidFrame, Unsettled
from ..identity import new_id
from . import _flet_core
from .base import (
    Call,
    Event,
    Frame,
    Generation,
    Handler,
    Host,
    Message,
    Origin,
    Outgoing,
    Publisher,
    Register,
    SessionPage,
    Updates,
)
from .client_rules import accepts, is_consequence, obeys_disabled, takes_input

# Kinds of outgoing messages. The client takes the first four in a batch and ignores the others there.
ADD, UPDATE, REMOVE, CLEAN, METHOD, CRASH = range(6)
_ACTIONS = {
    ADD: b"addPageControls",
    UPDATE: b"updateControlProps",
    REMOVE: b"removeControl",
    CLEAN: b"cleanControl",
    METHOD: b"invokeMethod",
    CRASH: b"sessionCrashed",
}
_ALONE = frozenset({METHOD, CRASH})
_PAYLOADS = {UPDATE: (b'{"props":[', b"]}"), REMOVE: (b'{"ids":[', b"]}"), CLEAN: (b'{"ids":[', b"]}")}

# The client nests an object in an array in an object; nothing that it sends is deeper.
_MAX_TEXT = 8192
_MAX_ID = 64
_MAX_NAME = 128
# The client tells one change at a time, of a handful of properties; a page's whole state is 14. Each costs the loop
# microseconds.
_MAX_PROPERTIES = 1000
# Dialogs that were opened last. What follows from the closing of a dialog comes right after it.
_MAX_OPENED = 100

# What a page is told of its client, by the property that holds it. Numbers may be empty.
_DETAILS = {
    "route": "pageRoute",
    "width": "pageWidth",
    "height": "pageHeight",
    "windowwidth": "windowWidth",
    "windowheight": "windowHeight",
    "windowtop": "windowTop",
    "windowleft": "windowLeft",
    "pwa": "isPWA",
    "web": "isWeb",
    "debug": "isDebug",
    "platform": "platform",
    "platformbrightness": "platformBrightness",
    "media": "media",
}
_NUMBERS = frozenset({"pageWidth", "pageHeight", "windowWidth", "windowHeight", "windowTop", "windowLeft"})

_USABLE, _CLOSED, _HIDDEN = _flet_core.Reach.USABLE, _flet_core.Reach.CLOSED, _flet_core.Reach.HIDDEN

_NO_SIDES = '{"top":0.0,"right":0.0,"bottom":0.0,"left":0.0}'
_NO_MEDIA = f'{{"padding":{_NO_SIDES},"view_padding":{_NO_SIDES},"view_insets":{_NO_SIDES}}}'

# Flet raises these itself; a client must not.
_INTERNAL_EVENTS = frozenset({"authorize", "connect", "disconnect", "close", "error", "change"})
_SYSTEM_ATTRIBUTES = frozenset({"id", "to", "from", "at", "t", "p", "i", "c"})
# `authorization` is the last of them.
_LOGIN_PARAMETERS = 9
# What flet_core calls when it makes a typed event of what the client sent: with nothing else in a traceback behind its
# event handler, the client's data were wrong.
_CONVERTERS = frozenset({"flet_core", "json", "enum", "datetime", "dataclasses"})


class ClassicGeneration(Generation):
    """JSON text frames, `{"action": …, "payload": …}`."""

    name = "classic"

    def decode(self, frame: Frame) -> Message:
        if not isinstance(frame, str):
            raise InvalidFrame("binary", "text frames only", 1003)
        try:
            message = _loads(frame)
        except ValueError:
            raise InvalidFrame("json", "invalid JSON", 1007) from None
        if type(message) is not dict:
            raise InvalidFrame("shape", "a frame is an object with action and payload")
        payload = message.get("payload")
        if type(payload) is not dict:
            raise InvalidFrame("shape", "payload must be an object")
        action = message.get("action")
        if action == "pageEventFromWeb":
            return _event(payload)
        if action == "updateControlProps":
            return _updates(payload)
        if action == "registerWebClient":
            return _register(payload)
        raise InvalidFrame("action", "unknown action")

    def encode(self, messages: Sequence[Outgoing]) -> list[Frame]:
        if len(messages) == 1:
            return [_framed(messages[0].kind, [messages[0].body]).decode()]
        frames: list[Frame] = []
        batch: list[bytes] = []
        for kind, bodies in _runs(messages):
            framed = _framed(kind, bodies)
            if kind in _ALONE:
                _close_batch(batch, frames)
                frames.append(framed.decode())
            else:
                batch.append(framed)
        _close_batch(batch, frames)
        return frames

    def refuse(self, message: str) -> Frame:
        return _registered(None, None, message)

    def open(self, host: Host, register: Register, origin: Origin, hub: PubSubHub) -> ClassicPage:
        return ClassicPage(host, register, origin, hub)

    def hub(self, publisher: Publisher | None = None) -> PubSubHub:
        return _Hub(asyncio.get_running_loop(), publisher)


def _runs(messages: Iterable[Outgoing]) -> list[tuple[int, list[bytes]]]:
    """Neighbours of one kind together, where the client takes a list."""
    runs: list[tuple[int, list[bytes]]] = []
    for kind, body, _ in messages:
        if kind in _PAYLOADS and runs and runs[-1][0] == kind:
            runs[-1][1].append(body)
        else:
            runs.append((kind, [body]))
    return runs


def _framed(kind: int, bodies: list[bytes]) -> bytes:
    before, after = _PAYLOADS.get(kind, (b"", b""))
    return b'{"action":"%b","payload":%b%b%b}' % (_ACTIONS[kind], before, b",".join(bodies), after)


def _close_batch(batch: list[bytes], frames: list[Frame]) -> None:
    if len(batch) == 1:
        frames.append(batch[0].decode())
    elif batch:
        frames.append((b'{"action":"pageControlsBatch","payload":[%b]}' % b",".join(batch)).decode())
    batch.clear()


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        # a lone surrogate, or a value that the user's code put where text belongs
        return json.dumps(value, default=str, separators=(",", ":")).encode()


def _loads(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none.
    """
    try:
        return orjson.loads(text)
    except ValueError:
        if "\\u" not in text:
            raise
    # half an emoji, which the client escapes while its user types one, and which orjson refuses
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("too deep") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _text(payload: Mapping[str, Any], name: str, limit: int | None = None) -> str:
    value = payload.get(name)
    if value is None:
        return ""
    if type(value) is not str or (limit is not None and len(value) > limit):
        raise InvalidFrame("type", f"{name} must be a text of reasonable length")
    return value


def _event(payload: Mapping[str, Any]) -> Event:
    try:
        target, name, data = payload["eventTarget"], payload["eventName"], payload["eventData"]
        if len(target) <= _MAX_ID and len(name) <= _MAX_NAME and type(target) is type(name) is str:
            if type(data) is str:
                return Event(target, name, data)
            if data is None:
                return Event(target, name, "")
    except (KeyError, TypeError):
        pass
    raise InvalidFrame("type", "an event has eventTarget, eventName and eventData, texts of reasonable length")


def _updates(payload: Mapping[str, Any]) -> Updates:
    changes = payload.get("props")
    if type(changes) is not list:
        raise InvalidFrame("type", "props must be a list")
    properties = 0
    for change in changes:
        if type(change) is not dict or type(change.get("i")) is not str:
            raise InvalidFrame("type", "each of props must be an object with an i")
        properties += len(change)
        if properties > _MAX_PROPERTIES:
            raise InvalidFrame("too_many", f"more than {_MAX_PROPERTIES} properties in a frame", 1009)
    return Updates(changes)


def _register(payload: Mapping[str, Any]) -> Register:
    details = {name: _text(payload, name, _MAX_TEXT) for name in (*_DETAILS.values(), "pageName")}
    for name in _NUMBERS:
        if not accepts("page", "windowwidth", details[name]):
            raise InvalidFrame("type", f"{name} must be a number or empty")
    if not accepts("page", "media", details["media"]):
        details["media"] = _NO_MEDIA
    return Register(_text(payload, "sessionId", _MAX_TEXT), details)


def _registered(credential: str | None, controls: Mapping[str, Any] | None, error: str = "") -> str:
    session = None if credential is None else {"id": credential, "controls": controls}
    payload = {"session": session, "appInactive": False, "error": error}
    return _dumps({"action": "registerWebClient", "payload": payload}).decode()


class _Link(Connection):
    """What a `flet_core.Page` takes for its connection: it outlives every websocket."""

    def __init__(self, host: Host, origin: Origin, details: Mapping[str, str], hub: _SessionHub) -> None:
        # Connection.__init__ would make a hub for each session
        self.page_name = origin.page_name
        self.page_url = origin.page_url
        self.sessions: dict[str, Any] = {}
        self.pubsubhub = hub
        self.provider = ""
        self.host = host
        self.answers = {prop: details[name] for prop, name in _DETAILS.items()}
        self.answers |= {"clientip": origin.client_ip, "clientuseragent": origin.user_agent}
        self._last_id = 0
        self._opened: dict[str, None] = {}

    def opened(self, uid: str) -> None:
        """The browser is told to open this dialog."""
        self._opened.pop(uid, None)
        self._opened[uid] = None
        if len(self._opened) > _MAX_OPENED:
            self._opened.pop(next(iter(self._opened)), None)

    def was_open(self, uid: str) -> bool:
        """Whether the browser has been told to open this dialog, not too long ago."""
        return uid in self._opened

    def send_command(self, session_id: str, command: Command) -> PageCommandResponsePayload:
        """Answers at once; `error` is set where the user's code must learn of a failure."""
        try:
            return PageCommandResponsePayload(self._perform(command), "")
        except FletFastAPIError as error:
            return PageCommandResponsePayload("", str(error))

    def send_commands(self, session_id: str, commands: Sequence[Command]) -> PageCommandsBatchResponsePayload:
        """One update of the page. The ids of added controls are the results."""
        if commands and commands[0].name == "get":
            answers = [self.answers.get(command.values[1].lower(), "") for command in commands]
            return PageCommandsBatchResponsePayload(answers, "")
        results: list[str] = []
        messages: list[Outgoing] = []
        for are_sets, group in groupby(commands, _is_set):
            if are_sets:
                changes = [{"i": command.values[0], **command.attrs} for command in group]
                for change in changes:
                    if change.get("open") == "true":
                        self.opened(change["i"])
                messages.append(Outgoing(UPDATE, _dumps(changes)[1:-1], False))
            else:
                messages += [self._message(command, results) for command in group]
        if messages:
            self.host.send(messages)
        return PageCommandsBatchResponsePayload(results, "")

    def _perform(self, command: Command) -> str:
        match command.name:
            case "getUploadUrl":
                return self.host.upload_url(command.attrs["file"], int(command.attrs["expires"]))
            case "oauthAuthorize":
                self.host.begin_login({**command.attrs, "provider": self.provider})
                return ""
        results: list[str] = []
        self.host.send([self._message(command, results)])
        return results[0] if results else ""

    def _message(self, command: Command, results: list[str]) -> Outgoing:
        match command.name:
            case "add":
                ids, controls = self._added(command)
                results.append(ids)
                return Outgoing(ADD, _dumps({"controls": controls, "trimIDs": []}), False)
            case "remove":
                return Outgoing(REMOVE, b",".join(map(_dumps, command.values)), False)
            case "clean":
                return Outgoing(CLEAN, b",".join(map(_dumps, command.values)), False)
            case "invokeMethod":
                method_id, name, control_id = command.values
                return Outgoing(METHOD, _method(method_id, name, control_id, command.attrs), True)
            case "error":
                return Outgoing(CRASH, _dumps({"message": str(command.values[0])}), False)
        raise ValueError(f"unknown command: {command.name}")

    def _added(self, command: Command) -> tuple[str, list[dict[str, Any]]]:
        """The ids of the added controls, and the controls, parents before children.

        A command's parent is the nearest one before it with a smaller indent.
        """
        top = command.attrs.get("to", "page")
        at = int(command.attrs.get("at", -1))
        added: list[dict[str, Any]] = []
        parents: list[tuple[int, dict[str, Any]]] = []
        for child in ([command] if command.values else []) + command.commands:
            while parents and parents[-1][0] >= child.indent:
                parents.pop()
            control = self._control(child)
            if parents:
                parent = parents[-1][1]
                control["p"] = parent["i"]
                parent["c"].append(control["i"])
            else:
                control["p"] = top
                if at >= 0:
                    control["at"] = str(at)
                    at += 1
            parents.append((child.indent, control))
            added.append(control)
        return " ".join([control["i"] for control in added]), added

    def _control(self, command: Command) -> dict[str, Any]:
        uid = command.attrs.get("id")
        if not uid:
            self._last_id += 1
            uid = f"_{self._last_id}"
        control: dict[str, Any] = {"t": command.values[0].lower(), "i": uid, "p": "", "c": []}
        control |= {name: value for name, value in command.attrs.items() if value and name not in _SYSTEM_ATTRIBUTES}
        if control.get("open") == "true":
            self.opened(uid)
        return control


def _is_set(command: Command) -> bool:
    return bool(command.name == "set")


def _method(method_id: str, name: str, control_id: str, arguments: Mapping[str, str] | None) -> bytes:
    # the client takes a map of texts only
    texts = {key: str(value) for key, value in (arguments or {}).items() if value is not None}
    return _dumps({"methodId": method_id, "methodName": name, "controlId": control_id or "", "arguments": texts})


class _Hub(PubSubHub):
    """The hub of one app in this worker. What is sent here, the hubs of the other workers hear, too."""

    def __init__(self, loop: asyncio.AbstractEventLoop, publisher: Publisher | None) -> None:
        super().__init__(loop)
        self._publisher = publisher

    def send_all(self, message: Any) -> None:
        self._send(None, None, message, on_topic=False)

    def send_others(self, except_session_id: str, message: Any) -> None:
        self._send(None, except_session_id, message, on_topic=False)

    def send_all_on_topic(self, topic: str, message: Any) -> None:
        self._send(topic, None, message, on_topic=True)

    def send_others_on_topic(self, except_session_id: str, topic: str, message: Any) -> None:
        self._send(topic, except_session_id, message, on_topic=True)

    def _send(self, topic: Any, sender: str | None, message: Any, *, on_topic: bool) -> None:
        publisher = self._publisher
        # first: what cannot go to all goes to nobody
        prepared = None if publisher is None else publisher.prepare(topic, sender, message, on_topic=on_topic)
        self.deliver(topic, sender, message, on_topic=on_topic)
        if publisher is not None and prepared is not None:
            publisher.publish(prepared)

    def deliver(self, topic: Any, sender: str | None, message: Any, *, on_topic: bool) -> None:
        """Tell the sessions of this worker."""
        if on_topic and sender is not None:
            super().send_others_on_topic(sender, topic, message)
        elif on_topic:
            super().send_all_on_topic(topic, message)
        elif sender is not None:
            super().send_others(sender, message)
        else:
            super().send_all(message)


class _SessionHub:
    """A session's view of its app's hub: what arrives runs as any other handler of the session does."""

    def __init__(self, hub: PubSubHub, host: Host) -> None:
        self._hub = hub
        self._host = host

    def subscribe(self, session_id: str, handler: Handler) -> None:
        self._hub.subscribe(session_id, self._host.in_turn(handler))

    def subscribe_topic(self, session_id: str, topic: str, handler: Handler) -> None:
        self._hub.subscribe_topic(session_id, topic, self._host.in_turn(handler))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)


class _Page(_flet_core.GuardedPage):
    """The user's `page`: its background work belongs to the session, which logs failures and ends it."""

    def __init__(self, link: _Link, host: Host) -> None:
        self._host = host
        self._link = link
        self._loop_thread = get_ident()
        super().__init__(link, host.public_id, host.loop, host.executor)

    def on_event_loop(self) -> bool:
        return get_ident() == self._loop_thread

    def send_properties(self, uid: str, attributes: dict[str, str]) -> None:
        """Tell the client what has changed in one control."""
        if attributes.get("open") == "true":
            self._link.opened(uid)
        self._host.send((Outgoing(UPDATE, _dumps({"i": uid, **attributes}), False),))

    def login(self, *args: Any, **kwargs: Any) -> Any:
        """As in Flet."""
        self._link.provider = _provider_host(*args, **kwargs)
        return super().login(*args, **_with_authorization(args, kwargs))

    async def login_async(self, *args: Any, **kwargs: Any) -> Any:
        """As in Flet."""
        self._link.provider = _provider_host(*args, **kwargs)
        return await super().login_async(*args, **_with_authorization(args, kwargs))

    def run_task(self, handler: Handler, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a coroutine function on the loop; its failure is logged, its end is the session's end at the latest."""
        return self._host.run_task(partial(handler, *args, **kwargs))

    def run_thread(self, handler: Handler, *args: Any, **kwargs: Any) -> None:
        """Run a plain function in the pool of the worker; its failure is logged."""
        self._host.run(partial(handler, *args, **kwargs))


def _with_authorization(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """flet_core takes a stub for the default if it was imported before flet."""
    if len(args) < _LOGIN_PARAMETERS and "authorization" not in kwargs:
        from flet_runtime.auth.authorization import Authorization

        return {**kwargs, "authorization": Authorization}
    return kwargs


def _provider_host(provider: Any = None, *_: Any, **__: Any) -> str:
    """Where the user is sent to sign in."""
    try:
        return urlsplit(str(getattr(provider, "authorization_endpoint", ""))).hostname or ""
    except ValueError:
        return ""


class ClassicPage(SessionPage):
    """A `flet_core.Page` and its link to the browser."""

    __slots__ = ("_details", "_host", "_impatient", "_left_at", "_link", "_page", "_probes", "_snack", "context")

    def __init__(self, host: Host, register: Register, origin: Origin, hub: PubSubHub) -> None:
        self._host = host
        self._details = register.details
        self._left_at = register.details["pageRoute"]
        self._link = _Link(host, origin, register.details, _SessionHub(hub, host))
        self._snack: SnackBar | None = None
        self._impatient = False
        self._probes: dict[str, asyncio.Future[bool]] = {}
        # a Page makes itself the current one of the context it is made in
        self._page = _Page(self._link, host)
        self.context: Context = copy_context()
        _flet_core.set_first_properties(self._page, self._link.answers)

    @property
    def argument(self) -> Page:
        return self._page

    def registered(self, credential: str) -> Frame:
        return _registered(credential, {"page": {"t": "page", "i": "page", "p": "", "c": [], **self._link.answers}})

    async def resume(self, register: Register, credential: str, attach: Callable[[Frame], None]) -> None:
        # A thread that computes an update holds the lock for milliseconds. If the user's code holds it for long, the
        # tree is read without it: waiting would stop every session.
        lock = _flet_core.update_lock(self._page)
        locked = await _acquire(lock)
        try:
            self._take_details(register.details)
            attach(_registered(credential, _tree(self._page)))
        finally:
            if locked:
                lock.release()

    def _take_details(self, details: Mapping[str, str]) -> None:
        """What the client tells when it registers is news only after a page load.

        After a lost connection it repeats what was true when it was loaded, the route excepted.
        """
        for prop, name in _DETAILS.items():
            if prop != "route" and details[name] != self._details[name]:
                _flet_core.set_property(self._page, prop, details[name])
        self._details = details
        if details["pageRoute"] != self._left_at:
            _flet_core.set_property(self._page, "route", details["pageRoute"])

    async def connected(self, register: Register) -> None:
        if (handler := self._page.on_connect) is not None:
            await self._host.call(handler, self._own_event("connect"))
        if (route := register.details["pageRoute"]) != self._left_at:
            handler = self._page.event_handlers["route_change"]
            await self._host.call(handler, self._own_event("route_change", route))

    def disconnected(self) -> Coroutine[Any, Any, None] | None:
        self._left_at = self.route
        handler = self._page.on_disconnect
        return None if handler is None else self._host.call(handler, self._own_event("disconnect"))

    def dispatch(self, event: Event) -> Call | None:
        target, name, data = event
        page = self._page
        control = page.get_control(target)
        if control is None:
            self._unknown("event_target")
            return None
        handler = control.event_handlers.get(name)
        if control is page and name == "invoke_method_result":
            self._deliver_result(handler, data)
            return None
        if (kind := self._refusal(control, event, handler)) is not None:
            self._host.refused(kind)
            return None
        return handler, ControlEvent(target, name, data, control, page)

    def _refusal(self, control: Control, event: Event, handler: Handler | None) -> str | None:
        """Why the client may not send this event."""
        if control is self._page:
            return self._page_refusal(event, handler)
        if handler is None:
            return "event_unheard" if event.name in control.event_handlers else "event_name"
        kind = _flet_core.control_type(control)
        reach = _flet_core.reach(control, self._page)
        if reach is not _USABLE:
            if reach is _HIDDEN or (reach is _CLOSED and not self._follows_closing(control, event)):
                return "event_invisible"
            if obeys_disabled(kind, event.name):
                return "event_disabled"
        if event.name == "change" and takes_input(kind) and self._is_read_only(control):
            return "event_read_only"
        if kind == "dragtarget" and not self._names_draggable(event):
            return "event_data"
        return None

    def _follows_closing(self, control: Control, event: Event) -> bool:
        """Whether the event may follow from the closing of the control's dialogs: they must have been open."""
        return is_consequence(event.name) and all(
            self._link.was_open(dialog.uid) for dialog in _flet_core.closed_dialogs(control, self._page)
        )

    @staticmethod
    def _is_read_only(control: Control) -> bool:
        return str(_flet_core.get_property(control, "readonly")).lower() == "true"

    def _page_refusal(self, event: Event, handler: Handler | None) -> str | None:
        if event.name in _INTERNAL_EVENTS:
            # the client reports errors of its own as `error`: that is no attack, but not the app's business either
            return "client_error" if event.name == "error" else "event_internal"
        if handler is None:
            return "event_name"
        if event.name == "view_pop" and all(event.data not in (view.route, view.uid) for view in self._page.views):
            return "event_data"
        return None

    def _names_draggable(self, event: Event) -> bool:
        """Apps look up the control that a drag names, so it must be one that can be dragged."""
        match event.name:
            case "accept" | "move":
                source = _source_id(event.data)
            case "leave":
                source = event.data
            case _:
                return True
        control = self._page.get_control(source)
        return control is not None and _flet_core.control_type(control) == "draggable"

    def _unknown(self, kind: str) -> None:
        # flet_core sends what it has added first, and puts it into its index afterwards
        if not self._impatient and _flet_core.update_lock(self._page).locked():
            raise Unsettled
        self._impatient = False
        self._host.refused(kind)

    async def settled(self) -> None:
        self._impatient = True
        if await _acquire(lock := _flet_core.update_lock(self._page)):
            lock.release()

    def _deliver_result(self, handler: Handler, data: str) -> None:
        # Called at once, not in a thread like other plain functions: who waits may wait on an asyncio.Event, which is
        # not thread-safe.
        try:
            result = _loads(data)
        except ValueError:
            result = None
        if not _is_result(result):
            raise InvalidFrame("type", "a method result has method_id, result and error")
        if (probe := self._probes.get(result["method_id"])) is not None:
            if not probe.done():
                probe.set_result(True)
            return
        handler(self._own_event("invoke_method_result", data))

    def apply(self, updates: Updates) -> None:
        for change in updates.changes:
            control = self._page.get_control(change["i"])
            if control is None:
                self._unknown("update_target")
            else:
                self._apply(control, change)

    def _apply(self, control: Control, change: Mapping[str, Any]) -> None:
        kind = _flet_core.control_type(control)
        refusal = self._update_refusal(control, kind)
        for name, value in change.items():
            if name == "i":
                continue
            if type(value) is not str:
                raise InvalidFrame("type", "a property's value must be a text")
            if not accepts(kind, name, value):
                self._host.refused("update_property")
            elif refusal is not None:
                self._host.refused(refusal)
            else:
                _flet_core.set_property(control, name, value)

    def _update_refusal(self, control: Control, kind: str) -> str | None:
        if control is self._page:
            return None
        reach = _flet_core.reach(control, self._page)
        if reach is _HIDDEN or reach is _CLOSED:
            return "update_invisible"
        if takes_input(kind) and self._is_read_only(control):
            return "update_read_only"
        return "update_disabled" if reach is not _USABLE and takes_input(kind) else None

    def probe(self) -> Awaitable[bool]:
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        method_id = f"probe-{new_id()}"
        self._probes[method_id] = answered
        answered.add_done_callback(lambda _: self._probes.pop(method_id))
        # the one method that the client always answers and that shows nothing
        body = _method(method_id, "canLaunchUrl", "", {"url": "https://localhost/"})
        self._host.send([Outgoing(METHOD, body, False)])
        return answered

    async def authorize(self, answer: Mapping[str, str | None]) -> None:
        handler = self._page.event_handlers["authorize"]
        await self._host.call(handler, self._own_event("authorize", json.dumps(dict(answer))))

    def crash(self, message: str) -> None:
        self._host.send([Outgoing(CRASH, _dumps({"message": message}), False)])

    def notify(self, message: str) -> None:
        # one bar for all messages: a control for each would grow without a bound
        if self._snack is None:
            self._snack = SnackBar(Text(message))
        else:
            self._snack.content = Text(message)
        self._page.open(self._snack)

    def error_handler(self, message: str) -> Call | None:
        handler = self._page.on_error
        return None if handler is None else (handler, self._own_event("error", message))

    def is_users(self, error: BaseException) -> bool:
        if isinstance(error, PageDisconnectedException):
            return False
        converting = deeper = False
        trace = error.__traceback__
        while trace is not None:
            module = str(trace.tb_frame.f_globals.get("__name__", ""))
            if module == "flet_core.event_handler":
                converting, deeper = True, False
            else:
                deeper = True
                converting = converting and module.partition(".")[0] in _CONVERTERS
            trace = trace.tb_next
        return not (converting and deeper)

    def values(self) -> dict[str, Any]:
        session = self._page.session
        return {key: session.get(key) for key in session.get_keys()}

    def fill(self, values: Mapping[str, Any]) -> None:
        self._page.session.clear()
        for key, value in values.items():
            self._page.session.set(key, value)

    @property
    def route(self) -> str:
        return str(self._page.route or "")

    async def closing(self) -> None:
        if (handler := self._page.on_close) is not None:
            await self._host.call(handler, self._own_event("close"))

    def dispose(self) -> None:
        _flet_core.close(self._page)

    def _own_event(self, name: str, data: str = "") -> ControlEvent:
        return ControlEvent("page", name, data, self._page, self._page)


def _source_id(data: str) -> str:
    try:
        source = _loads(data)["src_id"]
    except (ValueError, TypeError, KeyError):
        return ""
    return source if type(source) is str else ""


def _is_result(result: Any) -> bool:
    return (
        type(result) is dict
        and result.keys() == {"method_id", "result", "error"}
        and type(result["method_id"]) is str
        and all(value is None or type(value) is str for value in result.values())
    )


async def _acquire(lock: Lock, tries: int = 100) -> bool:
    for _ in range(tries):
        if lock.acquire(blocking=False):
            return True
        await asyncio.sleep(0.01)
    return False


def _tree(page: Page) -> dict[str, dict[str, Any]]:
    """All controls that the client knows, by id."""
    nodes: dict[str, dict[str, Any]] = {}
    waiting: list[tuple[Control, str]] = [(page, "")]
    while waiting:
        control, parent = waiting.pop()
        children = _flet_core.known_children(control)
        nodes[control.uid] = _node(control, parent, [child.uid for child in children])
        waiting += [(child, control.uid) for child in children]
    return nodes


def _node(control: Control, parent: str, children: list[str]) -> dict[str, Any]:
    node = {"t": _flet_core.control_type(control), "i": control.uid, "p": parent, "c": children}
    node.update(_flet_core.properties(control))
    return node
