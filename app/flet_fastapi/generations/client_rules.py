"""What the classic web client (flet 0.24) does by itself: the properties it changes, and what it does when disabled.

Everything here was read off the client: each of its ``updateControlState`` calls, with the strings it can pass. A type
that is listed with no properties has a client side that changes nothing. All values travel as strings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Literal

import orjson

Kind = Literal[
    "text",  # anything, "" included
    "bool",  # "true" or "false"
    "tristate",  # a bool, or "" for null
    "closing",  # "false": the client closes what the app opened, never the other way
    "cleared",  # "": a command of the app (scroll, pick files, open the search view) was taken up
    "int",
    "number",
    "nullable number",  # a number, or "" for null
    "date",  # ISO 8601, or "" for null
    "time",  # "9:5", hours and minutes, not padded
    "strings",  # a JSON list of strings
    "brightness",
    "media",  # JSON: the paddings and insets of the window
]

_DIALOG: Mapping[str, Kind] = {"open": "closing"}
_INDEX: Mapping[str, Kind] = {"selectedindex": "int"}
_SCROLLABLE: Mapping[str, Kind] = {"method": "cleared"}
_SLIDER: Mapping[str, Kind] = {"value": "number"}
_SWITCH: Mapping[str, Kind] = {"value": "bool"}
_TEXT: Mapping[str, Kind] = {"value": "text"}
_TRISTATE: Mapping[str, Kind] = {"value": "tristate"}

_WRITES: Mapping[str, Mapping[str, Kind]] = {
    "alertdialog": _DIALOG,
    "autocomplete": _INDEX,
    "bottomsheet": _DIALOG,
    "checkbox": _TRISTATE,
    "chip": {"selected": "bool"},
    "column": _SCROLLABLE,
    "cupertinoalertdialog": _DIALOG,
    "cupertinobottomsheet": _DIALOG,
    "cupertinocheckbox": _TRISTATE,
    "cupertinodatepicker": {"value": "date"},
    "cupertinonavigationbar": _INDEX,
    "cupertinopicker": _INDEX,
    "cupertinosegmentedbutton": _INDEX,
    "cupertinoslider": _SLIDER,
    "cupertinoslidingsegmentedbutton": _INDEX,
    "cupertinoswitch": _SWITCH,
    "cupertinotextfield": _TEXT,
    "cupertinotimerpicker": {"value": "int"},  # seconds
    "datepicker": {"value": "date", "open": "closing"},
    "dropdown": _TEXT,
    "expansionpanel": {"expanded": "bool"},
    "filepicker": {"state": "cleared"},
    "gridview": _SCROLLABLE,
    "listview": _SCROLLABLE,
    "navigationbar": _INDEX,
    "navigationdrawer": {"selectedindex": "int", "open": "closing"},
    "navigationrail": _INDEX,
    # The window properties come as "" from browsers, as values from Flet's desktop client.
    "page": {
        "route": "text",
        "width": "number",
        "height": "number",
        "windowwidth": "nullable number",
        "windowheight": "nullable number",
        "windowtop": "nullable number",
        "windowleft": "nullable number",
        "windowminimized": "tristate",
        "windowmaximized": "tristate",
        "windowfocused": "tristate",
        "windowfullscreen": "tristate",
        "platformbrightness": "brightness",
        "media": "media",
    },
    "radiogroup": _TEXT,  # written by its radios, which write nothing of their own
    "rangeslider": {"startvalue": "number", "endvalue": "number"},
    "row": _SCROLLABLE,
    "searchbar": {"value": "text", "method": "cleared"},
    "segmentedbutton": {"selected": "strings"},
    "slider": _SLIDER,
    "snackbar": _DIALOG,
    "switch": _SWITCH,
    "tabs": _INDEX,
    "textfield": _TEXT,
    "timepicker": {"value": "time", "open": "closing"},
    "view": _SCROLLABLE,
}

_SILENT = """
    animatedswitcher appbar arc audio audiorecorder autofillgroup axis badge banner barchart bottomappbar canvas
    card circle circleavatar color container cupertinoactionsheet cupertinoactionsheetaction
    cupertinoactivityindicator cupertinoappbar cupertinobutton cupertinocontextmenu cupertinocontextmenuaction
    cupertinodialogaction cupertinolisttile cupertinoradio data datacell datacolumn datarow datatable dismissible
    divider draggable dragtarget dropdownoption elevatedbutton expansionpanellist expansiontile fill flashlight
    fletapp floatingactionbutton geolocator gesturedetector group hapticfeedback icon iconbutton image
    interactiveviewer item l line linechart listtile lottie map map_circle_layer map_circle_marker map_configuration
    map_marker map_marker_layer map_polygon_layer map_polygon_marker map_polyline_layer map_polyline_marker
    map_rich_attribution map_simple_attribution map_text_source_attribution map_tile_layer markdown menubar
    menuitembutton mergesemantics navigationbardestination navigationdrawerdestination navigationraildestination
    offstage outlinedbutton oval p pagelet path permission_handler piechart placeholder points popupmenubutton
    popupmenuitem progressbar progressring radio rect responsiverow rive rod safearea section segment selectionarea
    semantics semanticsservice shadermask shadow shakedetector stack stack_item submenubutton tab text textbutton
    textspan transparentpointer verticaldivider video webview windowdragarea
"""

CLIENT_WRITES: Mapping[str, Mapping[str, Kind]] = MappingProxyType(
    {
        **{silent: MappingProxyType({}) for silent in _SILENT.split()},
        **{k: MappingProxyType(dict(v)) for k, v in _WRITES.items()},
    }
)
"""Control type to property to kind, names in lower-case; holds every control type of flet-core."""

UNKNOWN_CONTROL_WRITES: Mapping[str, Kind] = MappingProxyType(
    {
        "value": "text",
        "open": "bool",
        "state": "text",
        "method": "cleared",
        "selected": "text",
        "selectedindex": "int",
        "expanded": "bool",
        "startvalue": "number",
        "endvalue": "number",
    }
)
"""For control types of other clients: the usual names, and none that guards anything (disabled, visible, …)."""

# Types whose client side never looks at `disabled`: parts that nobody clicks, and pickers, which the app opens.
_NEVER_DISABLED = frozenset(
    """
    audio audiorecorder autocomplete canvas cupertinodatepicker cupertinotimerpicker datepicker filepicker flashlight
    fletapp geolocator hapticfeedback lottie map permission_handler rive semanticsservice shakedetector timepicker
    video webview
    """.split()
)

# Events that follow from what happened before the control was disabled or its dialog closed, or from the app itself.
_CONSEQUENCES = frozenset({"blur", "dismiss", "animation_end", "onScroll", "visible", "change_end", "cancel", "close"})

# Types whose client side takes no input while they are disabled. A value that comes all the same was sent by hand.
_INPUTS = frozenset(
    """
    checkbox chip cupertinocheckbox cupertinosegmentedbutton cupertinoslider cupertinoslidingsegmentedbutton
    cupertinoswitch cupertinotextfield dropdown expansionpanel radiogroup rangeslider segmentedbutton slider switch
    textfield
    """.split()
)

# No client sends longer ones; int() and float() of a long string are slow or raise.
_INT = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,32}(\.[0-9]{1,32})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):[0-5]?[0-9]", re.ASCII)
_LONGEST_DATE = 40
_SIDES = {"top", "right", "bottom", "left"}
_MEDIA = {"padding", "view_padding", "view_insets"}


def accepts(control_type: str, name: str, value: str) -> bool:
    """Whether the client ever sets ``name`` of a ``control_type`` (both lower-case) to such a value."""
    kind = CLIENT_WRITES.get(control_type, UNKNOWN_CONTROL_WRITES).get(name)
    return kind is not None and _CHECKS[kind](value)


def obeys_disabled(control_type: str, event: str) -> bool:
    """Whether a disabled ``control_type`` must not send ``event``."""
    return control_type not in _NEVER_DISABLED and not is_consequence(event)


def is_consequence(event: str) -> bool:
    """Whether the client sends ``event`` by itself, of a control that its user can no longer reach, too."""
    return event in _CONSEQUENCES


def takes_input(control_type: str) -> bool:
    """Whether what the client writes to a ``control_type`` is what its user entered, and never while it is disabled."""
    return control_type in _INPUTS


def _is_number(value: str) -> bool:
    return _NUMBER.fullmatch(value) is not None and math.isfinite(float(value))


def _is_date(value: str) -> bool:
    try:
        datetime.fromisoformat(value[:_LONGEST_DATE])
    except ValueError:
        return False
    return len(value) <= _LONGEST_DATE


def _json(value: str) -> object:
    try:
        return orjson.loads(value)
    except ValueError:
        return None


def _is_strings(value: str) -> bool:
    found = _json(value)
    return isinstance(found, list) and all(isinstance(item, str) for item in found)


def _is_media(value: str) -> bool:
    found = _json(value)
    return isinstance(found, dict) and found.keys() == _MEDIA and all(_is_padding(part) for part in found.values())


def _is_padding(part: object) -> bool:
    return (
        isinstance(part, dict) and part.keys() == _SIDES and all(type(side) in (int, float) for side in part.values())
    )


_CHECKS: Mapping[Kind, Callable[[str], bool]] = {
    "text": lambda value: True,
    "bool": lambda value: value in ("true", "false"),
    "tristate": lambda value: value in ("true", "false", ""),
    "closing": lambda value: value == "false",
    "cleared": lambda value: value == "",
    "int": lambda value: _INT.fullmatch(value) is not None,
    "number": _is_number,
    "nullable number": lambda value: value == "" or _is_number(value),
    "date": lambda value: value == "" or _is_date(value),
    "time": lambda value: _TIME.fullmatch(value) is not None,
    "strings": _is_strings,
    "brightness": lambda value: value in ("light", "dark"),
    "media": _is_media,
}
