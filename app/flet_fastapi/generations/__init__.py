"""Flet's wire protocol families, and the chooser between them."""

from __future__ import annotations

from typing import Any

from .base import Generation
from .classic import ClassicGeneration

_CLASSIC = ClassicGeneration()


def generation_for(handler: Any) -> Generation:
    """The generation that the app behind `handler` is written for: so far there is one."""
    return _CLASSIC
