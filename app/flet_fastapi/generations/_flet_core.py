"""The only place that touches what `flet_core` does not publish.

`tests/generations/test_flet_core.py` fails if any of it changes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from enum import Enum
from threading import Lock
from typing import Any

from flet_core import Control, Page
from flet_core.page import PageDisconnectedException

from ..logs import get_logger

log = get_logger(__name__)

# What is in them can be reached only while they are open.
_DIALOGS = frozenset({"alertdialog", "bottomsheet", "cupertinoalertdialog", "cupertinobottomsheet"})
# A tree of controls that is deeper than Python's stack cannot have been sent to a client.
_DEEPEST = 1000


def control_type(control: Control) -> str:
    """The name by which the client knows this kind of control, in lower case."""
    return str(control._get_control_name()).lower()


def set_property(control: Control, name: str, value: str) -> None:
    """Set a property to what the client already shows, so it is not sent back."""
    control._set_attr(name, value, dirty=False)


def get_property(control: Control, name: str) -> Any:
    return control._get_attr(name)


def properties(control: Control) -> Iterator[tuple[str, str]]:
    """All properties with a value, as the client wants them: also those that no `update()` has sent yet."""
    for name, (value, _) in list(control._Control__attrs.items()):
        if value is None or value == "" or name == "id":
            continue
        if isinstance(value, bool):
            yield name, "true" if value else "false"
        elif isinstance(value, dt.date):
            yield name, value.isoformat()
        else:
            yield name, str(value)


class Reach(Enum):
    """What a user can do with a control."""

    USABLE = 0
    DISABLED = 1
    HIDDEN = 2


def reach(control: Control, page: Page) -> Reach:
    """What a user can do with `control`, given all that it is in.

    The page itself does not count: the client's views do not inherit what is disabled there.
    """
    disabled = False
    at: Control | None = control
    depth = 0
    while at is not None and at is not page and depth < _DEEPEST:
        attributes = at._Control__attrs
        if "visible" in attributes and _is(attributes["visible"], "false"):
            return Reach.HIDDEN
        if "open" in attributes and at is not control and _is_closed(at):
            return Reach.HIDDEN
        if "disabled" in attributes and _is(attributes["disabled"], "true"):
            disabled = True
        at = at.parent
        depth += 1
    return Reach.DISABLED if disabled else Reach.USABLE


def _is_closed(control: Control) -> bool:
    return control_type(control) in _DIALOGS and not _is(control._Control__attrs["open"], "true")


def _is(attribute: tuple[Any, bool], text: str) -> bool:
    return str(attribute[0]).lower() == text


def known_children(control: Control) -> list[Control]:
    """The children that the client knows; others wait for their `update()`."""
    return [child for child in control._previous_children if child.uid]


def update_lock(page: Page) -> Lock:
    """Held by the thread that computes an update of `page`."""
    lock: Lock = page._Page__lock
    return lock


def close(page: Page) -> None:
    """Let go of the controls, the subscriptions and the connection; a later update raises."""
    page.pubsub.unsubscribe_all()
    # what `_close` does too, but there the first control that fails ends it
    for control in page._remove_control_recursively(page.index, page):
        try:
            control.will_unmount()
        except Exception:
            log.exception("will_unmount_failed", control=control_type(control))
        control._dispose()
    page._close()


class GuardedPage(Page):
    """A page with a shorter way for the most frequent update, and without a trap."""

    def update(self, *controls: Control) -> None:
        """As in Flet. A control without children takes a way without the comparison of children."""
        if len(controls) != 1 or controls[0]._previous_children or controls[0]._get_children():
            super().update(*controls)
            return
        control = controls[0]
        with update_lock(self):
            if self.connection is None:
                raise PageDisconnectedException("Page has been disconnected")
            if attributes := control._build_command(update=True).attrs:
                self.send_properties(str(control.uid), attributes)
        if control._get_children():
            super().update(control)  # its `before_update` has made some

    def send_properties(self, uid: str, attributes: dict[str, str]) -> None:
        """Tell the client what has changed in one control."""
        raise NotImplementedError

    def _invoke_method(
        self, method_name: str, arguments: Any = None, control_id: Any = "", wait_for_result: Any = False,
        wait_timeout: Any = 5,
    ) -> Any:  # fmt: skip
        if self.connection is None:
            raise PageDisconnectedException("Page has been disconnected")
        # The answer comes over the event loop that this call would stop.
        if wait_for_result and self.on_event_loop():
            raise RuntimeError(
                f"{method_name} waits for the browser's answer and would stop every session meanwhile: "
                "await its _async variant, or call it in a plain function"
            )
        return super()._invoke_method(method_name, arguments, control_id, wait_for_result, wait_timeout)

    def on_event_loop(self) -> bool:
        """Whether the caller runs on the loop's thread."""
        raise NotImplementedError
