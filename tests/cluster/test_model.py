"""Any sequence of operations does to every store what it does to a dictionary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from flet_fastapi.cluster import Cluster, WorkerInfo

KEYS = st.sampled_from(["k", "", "{k}", "ключ", "k:\0"])
NUMBERS = st.sampled_from(["n", "{n}m"])
VALUES = st.sampled_from([b"", b"0", b"v", b"\0\xff"])
# what is over is not there; what ends while an example runs would end in the one store before the other
TIMES = st.sampled_from([60.0, 3600.5, 0.0, -1.0])
WORKERS = st.builds(
    WorkerInfo,
    id=st.sampled_from(["w1", "w2", "w3"]),
    address=st.sampled_from(["unix:/run/w", "tcp://10.0.0.1:7000"]),
    node=st.sampled_from(["node", "ü"]),
    slot=st.none() | st.integers(0, 3),
    started=st.floats(0, 2e9),
)


class Machine(RuleBasedStateMachine):
    """`make()` gives an empty cluster."""

    make: Callable[[], Cluster]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.cluster = type(self).make()
        self.keys: dict[str, bytes] = {}
        self.workers: dict[str, WorkerInfo] = {}

    def teardown(self) -> None:
        self.run(self.cluster.close())
        self.runner.close()

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def set(self, key: str, value: bytes, ttl: float) -> None:
        if ttl > 0:
            self.keys[key] = value
        else:
            self.keys.pop(key, None)

    @rule(key=KEYS, value=VALUES, ttl=TIMES)
    def put(self, key: str, value: bytes, ttl: float) -> None:
        self.run(self.cluster.put(key, value, ttl))
        self.set(key, value, ttl)

    @rule(key=KEYS)
    def take(self, key: str) -> None:
        assert self.run(self.cluster.take(key)) == self.keys.pop(key, None)

    @rule(key=KEYS, value=VALUES, ttl=TIMES)
    def add(self, key: str, value: bytes, ttl: float) -> None:
        free = key not in self.keys
        assert self.run(self.cluster.add(key, value, ttl)) is free
        if free:
            self.set(key, value, ttl)

    @rule(key=KEYS, expected=VALUES, value=VALUES, ttl=TIMES)
    def swap(self, key: str, expected: bytes, value: bytes, ttl: float) -> None:
        held = self.keys.get(key) == expected
        assert self.run(self.cluster.swap(key, expected, value, ttl)) is held
        if held:
            self.set(key, value, ttl)

    @rule(key=KEYS, expected=st.none() | VALUES)
    def delete(self, key: str, expected: bytes | None) -> None:
        held = key in self.keys and expected in (None, self.keys[key])
        assert self.run(self.cluster.delete(key, expected)) is held
        if held:
            del self.keys[key]

    @rule(key=NUMBERS, amount=st.integers(-(2**60), 2**60), ttl=TIMES)
    def increase(self, key: str, amount: int, ttl: float) -> None:
        number = int(self.keys.get(key, b"0")) + amount
        if abs(number) >= 2**63:
            return
        assert self.run(self.cluster.increase(key, amount, ttl)) == number
        self.set(key, str(number).encode(), ttl)

    @rule(worker=WORKERS, ttl=TIMES)
    def announce(self, worker: WorkerInfo, ttl: float) -> None:
        assert self.run(self.cluster.announce(worker, ttl)) is (worker.id in self.workers)
        self.workers.pop(worker.id, None)
        if ttl > 0:
            self.workers[worker.id] = worker

    @rule(worker=WORKERS)
    def withdraw(self, worker: WorkerInfo) -> None:
        self.run(self.cluster.withdraw(worker.id))
        self.workers.pop(worker.id, None)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        for key in ("k", "", "{k}", "ключ", "k:\0", "n", "{n}m"):
            assert self.run(self.cluster.get(key)) == self.keys.get(key)

    @invariant()
    def lists_whom_the_model_lists(self) -> None:
        listed = self.run(self.cluster.workers())
        assert [replace(worker) for worker in listed] == [self.workers[name] for name in sorted(self.workers)]


@pytest.mark.parametrize("kind", ["embedded", "redis"])
def test_store_does_what_a_dictionary_does(kind: str, request: pytest.FixtureRequest) -> None:
    make_store = request.getfixturevalue(f"make_{kind}")

    class OfThisKind(Machine):
        make = staticmethod(lambda: make_store().open())

    run_state_machine_as_test(
        OfThisKind,
        settings=settings(
            max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
