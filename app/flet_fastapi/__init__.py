"""Serve Flet apps from any ASGI server: see the Flet guide "Running Flet with FastAPI"."""

from .app import app
from .client import FletStaticFiles
from .fastapi import FastAPI
from .flet_app import FletApp
from .manager import app_manager
from .oauth import FletOAuth
from .uploads import FletUpload

__all__ = ["FastAPI", "FletApp", "FletOAuth", "FletStaticFiles", "FletUpload", "app", "app_manager"]
