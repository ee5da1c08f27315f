"""`roost.asgi:app`, the user's app for a server that imports its application by name: `ROOST_APP` says where it is."""

from __future__ import annotations

from .loader import load
from .process import tune
from .settings import Settings

app = load(Settings.load().app)
tune()
