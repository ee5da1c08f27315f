from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import fastapi
import httpx
import pytest

from flet_fastapi import FastAPI, app, app_manager


async def run(app: fastapi.FastAPI) -> Any:
    async with app.router.lifespan_context(app) as state:
        assert app_manager._loop is not None
        return state


async def test_lifespan_starts_and_stops_the_manager() -> None:
    await run(FastAPI())
    assert app_manager._loop is None


async def test_own_lifespan_runs_inside() -> None:
    seen = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, int]]:
        seen.append(app_manager._loop is not None)
        yield {"answer": 42}
        seen.append(app_manager._loop is not None)

    assert await run(FastAPI(lifespan=lifespan)) == {"answer": 42}
    assert seen == [True, True]


async def test_hooks_run_whether_async_or_not() -> None:
    seen = []

    async def waits() -> None:
        seen.append("async")

    app = FastAPI(on_startup=[lambda: seen.append("start"), waits], on_shutdown=[waits, lambda: seen.append("stop")])
    await run(app)
    assert seen == ["start", "async", "async", "stop"]


@pytest.mark.parametrize("where", ["on_startup", "lifespan", "on_shutdown"])
async def test_failure_stops_the_manager(where: str) -> None:
    def fails() -> None:
        raise LookupError

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        fails()
        yield

    app = FastAPI(lifespan=lifespan) if where == "lifespan" else FastAPI(**{where: [fails]})  # type: ignore[arg-type]
    with pytest.raises(LookupError):
        await run(app)
    assert app_manager._loop is None


def test_takes_what_fastapi_takes() -> None:
    app = FastAPI(title="Mine", docs_url=None, version="7", debug=True)
    assert (app.title, app.docs_url, app.version, app.debug) == ("Mine", None, "7", True)
    assert isinstance(app, fastapi.FastAPI)


async def test_a_mounted_app_is_found_below_a_root_path_that_the_proxy_strips() -> None:
    with pytest.warns(fastapi.exceptions.FastAPIDeprecationWarning):
        outer = fastapi.FastAPI(root_path="/prefix")
    outer.mount("/sub", app(lambda page: None))
    transport = httpx.ASGITransport(app=outer)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        page = await client.get("/sub/", headers={"Accept": "text/html"})
    assert '<base href="/prefix/sub/">' in page.text
    await app_manager.shutdown()


def noting(seen: list[str], what: str) -> Any:
    async def waits() -> None:
        seen.append(f"{what}, {'with' if app_manager._loop else 'without'} the manager")

    return waits


async def test_handlers_of_every_kind_run_in_their_order() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        seen.append("lifespan starts")
        yield
        seen.append("lifespan ends")

    app = FastAPI(
        lifespan=lifespan,
        on_startup=[lambda: seen.append("on_startup")],
        on_shutdown=[lambda: seen.append("on_shutdown")],
    )
    with pytest.deprecated_call(match="on_event"):
        app.on_event("startup")(noting(seen, "startup"))
        app.on_event("shutdown")(noting(seen, "shutdown"))
    await run(app)
    assert seen == [
        "on_startup", "startup, with the manager", "lifespan starts",
        "lifespan ends", "shutdown, with the manager", "on_shutdown",
    ]  # fmt: skip


async def test_what_app_returns_has_handlers_too() -> None:
    seen: list[str] = []
    main = app(lambda page: None)
    with pytest.deprecated_call(match="on_event"):
        main.on_event("startup")(noting(seen, "startup"))
    main.router.add_event_handler("shutdown", lambda: seen.append("shutdown"))
    await run(main)
    assert seen == ["startup, with the manager", "shutdown"]


@pytest.mark.parametrize("lifespan", [False, True])
async def test_handlers_of_a_router_run_once(lifespan: bool) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def own(_: Any) -> AsyncIterator[None]:
        seen.append("lifespan")
        yield

    router = fastapi.APIRouter(
        on_startup=[lambda: seen.append("start")],
        on_shutdown=[lambda: seen.append("stop")],
        lifespan=own if lifespan else None,
    )
    including = FastAPI(on_startup=[lambda: seen.append("first")])
    including.include_router(router)
    await run(including)
    assert seen == ["first", "start", *(["lifespan"] if lifespan else []), "stop"]
