"""What the library needs of a Flet wire protocol family: one *generation*, behind one interface.

Everything outside `generations/` is generation-blind. A generation decodes frames into `Message`s, keeps one
`SessionPage` per session, and encodes what the page wants to tell the browser.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextvars import Context
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

Frame = str | bytes
Handler = Callable[..., Any]
Call = tuple[Handler, Any]
"""A function of the user's code and its argument."""


class Register(NamedTuple):
    """The first frame of a connection: who the client says it is."""

    credential: str
    details: Mapping[str, str]


class Event(NamedTuple):
    """Something happened to a control."""

    target: str
    name: str
    data: str


class Updates(NamedTuple):
    """The client changed properties of its controls: `{"i": control id, property: value, …}` each."""

    changes: Sequence[Mapping[str, str]]


Message = Register | Event | Updates


class Outgoing(NamedTuple):
    """One message to the browser before it is framed.

    `keep`: it must also reach a browser that is away now (a method call); what is not kept is part of the tree that a
    resume delivers anyway.
    """

    kind: int
    body: bytes
    keep: bool


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the connection that made a session came from, as far as an app may know it."""

    page_url: str
    page_name: str
    client_ip: str
    user_agent: str


class Host(Protocol):
    """What a page may ask of the session it belongs to."""

    public_id: str

    @property
    def loop(self) -> AbstractEventLoop:
        """The loop that the session lives on."""

    @property
    def executor(self) -> Executor:
        """The pool that plain functions of the user's code run in."""

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Queue messages for the browser; from any thread.

        Raises:
            Disconnected: one must be kept for the browser's return, and too many are kept already.
        """

    def run(self, function: Handler, *args: Any) -> None:
        """Run the user's function in the background, a little later; from any thread."""

    def in_turn(self, function: Handler) -> Callable[..., None]:
        """What runs the user's function whenever it is called, a plain one for one call after the other."""

    def run_task(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Future[Any]:
        """Run the user's coroutine function in the background; from any thread."""

    def call(self, function: Handler, *args: Any) -> Coroutine[Any, Any, None]:
        """Run the user's function; the awaitable ends when it does, its failure having been reported."""

    def refused(self, kind: str) -> None:
        """The client tried what the page does not offer; `kind` is a metric label."""

    def upload_url(self, file_name: str, expires_seconds: int) -> str:
        """A signed URL for one upload; from any thread.

        Raises:
            UploadsDisabled: the app takes no uploads.
        """

    def begin_login(self, attributes: Mapping[str, str]) -> None:
        """Remember a sign-in that the page has started, until its callback comes; from any thread."""


class Publisher(Protocol):
    """The way of an app's hub to those of the other workers; from any thread."""

    def prepare(self, topic: Any, sender: str | None, message: Any, *, on_topic: bool) -> bytes | None:
        """What the other workers are to hear, None if there are none.

        Raises:
            TypeError: the message cannot go there.
        """

    def publish(self, prepared: bytes) -> None:
        """Tell them."""


class SessionPage(ABC):
    """One session's page: the user's controls and what hangs on them."""

    __slots__ = ()

    context: Context
    """Where the user's code runs: it knows this page as the current one."""

    @property
    @abstractmethod
    def argument(self) -> Any:
        """What the user's `main` is called with."""

    @abstractmethod
    def registered(self, credential: str) -> Frame:
        """The answer to the first `Register`: an empty page, which updates fill."""

    @abstractmethod
    async def resume(self, register: Register, credential: str, attach: Callable[[Frame], None]) -> None:
        """Answer a later `Register` with the whole current tree.

        `attach` is called with the answer at the moment from which on updates are no longer part of it.
        """

    @abstractmethod
    async def connected(self, register: Register) -> None:
        """The browser is back: `on_connect`, and a change of route if it came back to another place than it left."""

    @abstractmethod
    def disconnected(self) -> Coroutine[Any, Any, None] | None:
        """The browser has gone: what is to be awaited for `on_disconnect`, if the app has it."""

    @abstractmethod
    def dispatch(self, event: Event) -> Call | None:
        """The handler for an event of the client, and its argument; None if the page does not offer that.

        Raises:
            InvalidFrame: the event's data are not what such an event has.
            Unsettled: the control may be about to be known; await `settled()` and try again.
        """

    @abstractmethod
    def apply(self, updates: Updates) -> None:
        """Take over the properties that the client may change, and refuse the others.

        Raises:
            InvalidFrame: a value is not what values are.
            Unsettled: a control may be about to be known; await `settled()` and try again.
        """

    @abstractmethod
    async def settled(self) -> None:
        """Wait until no thread computes an update, but not for long; from then on `Unsettled` is not raised."""

    @abstractmethod
    def probe(self) -> Awaitable[bool]:
        """Ask the browser for a sign of life: True once it has come."""

    @abstractmethod
    async def authorize(self, answer: Mapping[str, str | None]) -> None:
        """A sign-in came back: keys `state`, `code`, `error`, `error_description`."""

    @abstractmethod
    def crash(self, message: str) -> None:
        """The app cannot go on: show `message` in place of the page."""

    @abstractmethod
    def notify(self, message: str) -> None:
        """A handler failed and the page goes on: show `message` beside it."""

    @abstractmethod
    def error_handler(self, message: str) -> Call | None:
        """The app's own handler for an error that says `message`, if it has one."""

    @abstractmethod
    def is_users(self, error: BaseException) -> bool:
        """Whether `error` comes from the user's code, and not from reading what the client sent."""

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """A copy of what `page.session` holds."""

    @abstractmethod
    def fill(self, values: Mapping[str, Any]) -> None:
        """Replace what `page.session` holds."""

    @property
    @abstractmethod
    def route(self) -> str:
        """Where the user is in the app."""

    @abstractmethod
    async def closing(self) -> None:
        """The session is about to end: `on_close`."""

    @abstractmethod
    def dispose(self) -> None:
        """Let go of everything that the page holds; a later update raises."""


class Generation(ABC):
    """One wire protocol family."""

    name: str

    @abstractmethod
    def decode(self, frame: Frame) -> Message:
        """What the client says in one frame.

        Raises:
            InvalidFrame: the frame breaks the protocol.
        """

    @abstractmethod
    def encode(self, messages: Sequence[Outgoing]) -> list[Frame]:
        """The frames that carry `messages` in this order, in as few frames as the client understands."""

    @abstractmethod
    def refuse(self, message: str) -> Frame:
        """The answer to a `Register` that cannot be served; the user reads `message`."""

    @abstractmethod
    def open(self, host: Host, register: Register, origin: Origin, hub: Any) -> SessionPage:
        """A new page for a new session, current in the context of the caller from now on.

        `hub` carries `page.pubsub` between the sessions of one app.
        """

    @abstractmethod
    def hub(self, publisher: Publisher | None = None) -> Any:
        """A new publish/subscribe hub for one app, whose `deliver` takes what other workers publish."""
