"""The only place that touches what `flet_core` does not publish.

`tests/generations/test_flet_core.py` fails if any of it changes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from enum import Enum
from operator import is_
from threading import Lock
from typing import Any

from flet_core import Control, Page
from flet_core.page import PageDisconnectedException
from flet_core.protocol import Command

from ..logs import get_logger

log = get_logger(__name__)

Index = dict[str, Control]

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


def set_first_properties(control: Control, values: Mapping[str, str]) -> None:
    """The same for several properties that a new control does not have yet; their names are in lower case."""
    control._Control__attrs.update({name: (value, False) for name, value in values.items()})


def get_property(control: Control, name: str) -> Any:
    return control._get_attr(name)


def properties(control: Control) -> Iterator[tuple[str, str]]:
    """All properties with a value, as the client wants them: also those that no `update()` has sent yet."""
    for name, (value, _) in list(control._Control__attrs.items()):
        if value is not None and value != "" and name != "id":
            yield name, _text(value)


def changes(control: Control) -> dict[str, str]:
    """The properties that an `update()` has to send. From now on they count as sent."""
    if not control.uid:
        return {}
    control._before_build_command()
    control.before_update()
    attributes = control._Control__attrs
    new = [name for name, (_, dirty) in list(attributes.items()) if dirty and name != "id"]
    changed: dict[str, str] = {}
    for name in sorted(new):
        value = attributes[name][0]
        if value is not None:
            changed[name] = _text(value)
            attributes[name] = (value, False)
    return changed


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, dt.date) else str(value)


class Reach(Enum):
    """What a user can do with a control."""

    USABLE = 0
    DISABLED = 1
    CLOSED = 2
    """In a dialog that is not open."""
    HIDDEN = 3


def reach(control: Control, page: Page) -> Reach:
    """What a user can do with `control`, given all that it is in.

    The page itself does not count: the client's views do not inherit what is disabled there.
    """
    disabled = closed = False
    at: Control | None = control
    depth = 0
    while at is not None and at is not page and depth < _DEEPEST:
        attributes = at._Control__attrs
        if "visible" in attributes and _is(attributes["visible"], "false"):
            return Reach.HIDDEN
        if "open" in attributes and at is not control and _is_closed(at):
            closed = True
        if "disabled" in attributes and _is(attributes["disabled"], "true"):
            disabled = True
        at = at.parent
        depth += 1
    if closed:
        return Reach.CLOSED
    return Reach.DISABLED if disabled else Reach.USABLE


def closed_dialogs(control: Control, page: Page) -> Iterator[Control]:
    """The dialogs that keep a control, which is in reach `CLOSED`, from being usable."""
    at, depth = control.parent, 0
    while at is not None and at is not page and depth < _DEEPEST:
        if "open" in at._Control__attrs and _is_closed(at):
            yield at
        at = at.parent
        depth += 1


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


def _add_changes(
    control: Control, index: Index, commands: list[Command], added: list[Control], removed: list[Control],
    *, isolated: bool = False,
) -> None:  # fmt: skip
    """What `control.build_update_commands` does, in half the time where all children are those of before."""
    if type(control).build_update_commands is not Control.build_update_commands or not _keeps_children(control):
        control.build_update_commands(index, commands, added, removed, isolated)
        return
    if changed := changes(control):
        commands.append(Command(0, "set", [control.uid], changed, []))
    if isolated:
        return
    if not _keeps_children(control):  # its `before_update` has made some
        control.build_update_commands(index, commands, added, removed)
        return
    for child in list(control._previous_children):
        _add_changes(child, index, commands, added, removed, isolated=child.is_isolated())


def _keeps_children(control: Control) -> bool:
    before, now = control._previous_children, control._get_children()
    return len(before) == len(now) and all(map(is_, before, now))


class GuardedPage(Page):
    """A page with a shorter way for the most frequent updates, and without a trap."""

    def update(self, *controls: Control) -> None:
        """As in Flet. A control without children takes a way without the comparison of children."""
        if len(controls) != 1 or controls[0]._previous_children or controls[0]._get_children():
            super().update(*controls)
            return
        control = controls[0]
        with update_lock(self):
            if self.connection is None:
                raise PageDisconnectedException("Page has been disconnected")
            if changed := changes(control):
                self.send_properties(str(control.uid), changed)
        if control._get_children():
            super().update(control)  # its `before_update` has made some

    def _Page__prepare_update(  # noqa: N802  the name of what every update of flet_core goes through
        self, *controls: Control
    ) -> tuple[list[Command], list[Control], list[Control]]:
        """The commands of an update, and the controls that it adds and removes."""
        commands: list[Command] = []
        added: list[Control] = []
        removed: list[Control] = []
        for control in controls:
            _add_changes(control, self.index, commands, added, removed)
        return commands, added, removed

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
