"""What uvicorn is told to load: `uvicorn --factory bench.serve:ours`, with the app's name in BENCH_APP."""

import importlib
import os
from typing import Any


def main() -> Any:
    return importlib.import_module(f"bench.apps.{os.environ['BENCH_APP']}").main


def shipped() -> Any:
    """As `roost run` serves it."""
    from roost.process import tune

    app = ours()
    tune()
    return app


def ours() -> Any:
    """As uvicorn alone serves it."""
    import flet_fastapi

    return flet_fastapi.app(main())


def upstream() -> Any:
    import flet.fastapi

    return flet.fastapi.app(main())


def echo() -> Any:
    from bench.apps.echo import app

    return app
