"""The run directory of a server that lives, removed by a cleaner of /tmp."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

from tests.support.workers import all_workers, click, counter, owner_of, reach, started, visit, workers


async def test_worker_that_starts_after_a_cleaner_finds_the_sessions(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with workers(tmp_path / "log", number=2, FLET_RUN_DIR=str(run)) as server:
        pids = await all_workers(server, 2)
        client = await visit(server)
        await click(client)
        await client.abort()
        shutil.rmtree(run)
        async with asyncio.timeout(20):
            while len(list(run.glob("*/worker-*.sock"))) < 2:
                await asyncio.sleep(0.05)
        (other,) = pids - {owner_of(client)}
        os.kill(other, signal.SIGKILL)
        await all_workers(server, 2)
        back = await reach(client, other_than=pids)
        await (await back.register()).wait_for(started)
        assert (owner_of(back), counter(back)["value"]) == (owner_of(client), "1")
        await back.close()
