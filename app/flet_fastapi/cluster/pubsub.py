"""Publish and subscribe between the workers: what one worker's sessions tell, the hubs of the others hear.

Within a worker messages go by reference, and a worker that is alone encodes nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from msgpack import packb, unpackb

from ..logs import get_logger
from ..metrics import Metrics
from . import typed

log = get_logger(__name__)

# The same thing again and again is told once a minute.
_QUIET_SECONDS = 60.0


class Hub(Protocol):
    """What delivers in one worker, to the sessions of one app."""

    def deliver(self, topic: Any, sender: str | None, message: Any, *, on_topic: bool) -> None:
        """Deliver what another worker's session has published."""


class Links(Protocol):
    """The way to the other workers."""

    @property
    def alone(self) -> bool: ...

    def publish(self, payload: bytes) -> None: ...


class PubSub:
    """One worker's part of it."""

    def __init__(
        self, links: Links, hub: Callable[[str], Hub | None], metrics: Metrics, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._links = links
        self._hub = hub
        self._metrics = metrics
        self._loop = loop
        self._lock = threading.Lock()
        self._outgoing: list[bytes] = []
        self._told = -_QUIET_SECONDS

    def prepare(self, app: str, topic: Any, sender: str | None, message: Any, *, on_topic: bool) -> bytes | None:
        """What the other workers are to hear, None if there are none; from any thread.

        Raises:
            CannotCross: the message cannot go there.
        """
        if self._links.alone:
            return None
        body = typed.dumps((topic, message))
        return packb([app, on_topic, sender, time.time(), body])  # type: ignore[no-any-return]

    def publish(self, prepared: bytes) -> None:
        """Send what was prepared, in the order of the calls; from any thread."""
        with self._lock:
            self._outgoing.append(prepared)
            first = len(self._outgoing) == 1
        if first:
            self._loop.call_soon_threadsafe(self._send)

    def _send(self) -> None:
        with self._lock:
            outgoing, self._outgoing = self._outgoing, []
        for payload in outgoing:
            self._links.publish(payload)

    def received(self, payload: bytes) -> None:
        """Another worker has published."""
        self._metrics.pubsub_messages.labels("received").inc()
        try:
            app, on_topic, sender, sent, body = unpackb(payload)
            self._metrics.pubsub_lag_seconds.observe(max(0.0, time.time() - sent))
            hub = self._hub(app)
            if hub is not None:
                topic, message = typed.loads(body)
                hub.deliver(topic, sender, message, on_topic=on_topic is True)
        except typed.UnknownClass as error:
            self._lost("unknown_class", error)
        except Exception as error:  # noqa: BLE001  whatever it is, only this message is lost
            self._lost("malformed", error)

    def _lost(self, reason: str, error: Exception) -> None:
        self._metrics.pubsub_dropped.labels(reason).inc()
        if time.monotonic() - self._told > _QUIET_SECONDS:
            self._told = time.monotonic()
            log.warning("published_message_lost", reason=reason, problem=str(error))
