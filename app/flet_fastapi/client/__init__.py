"""The web client: found in the `flet` package, patched, compressed once, served from the app itself."""

from __future__ import annotations

from .static import FletStaticFiles

__all__ = ["FletStaticFiles"]
