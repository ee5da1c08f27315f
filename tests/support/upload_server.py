"""One worker with an upload endpoint, a process: `python upload_server.py RUN_DIR UPLOAD_DIR LISTENING_FD [QUOTA]`."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn

sys.path.insert(0, str(Path(__file__).parents[2]))

from flet_fastapi.options import Options
from flet_fastapi.uploads import FletUpload
from tests.support.fake_server import FakeServer


async def serve(run_dir: Path, upload_dir: Path, listener: socket.socket, quota: str | None = None) -> None:
    server = FakeServer(run_dir, upload_lease_seconds=1, upload_dir_quota=quota)
    upload = FletUpload.from_options(Options.load(upload_dir=upload_dir), server)
    await upload.prepare()
    print("ready", flush=True)
    await uvicorn.Server(uvicorn.Config(upload, log_level="warning", lifespan="off")).serve([listener])
    await server.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2]), socket.socket(fileno=int(sys.argv[3])), *sys.argv[4:]))
