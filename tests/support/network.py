"""Hosts of a test: network namespaces, joined by a switch whose wires can be cut.

Needs root. The test's own process has one wire to the switch; nothing else of the machine's network is changed.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Of the range for tests of networks (RFC 2544); which of its networks is drawn by lot.
_RANGE = "198.18"


class Host:
    """A machine with an address of its own; `run(...)` is what goes before a command that is to run there."""

    def __init__(self, name: str, address: str, network: Network) -> None:
        self.name, self.address = name, address
        self._network = network

    @property
    def run(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self._network.namespace(self.name))


class Network:
    """Hosts by name, at a switch."""

    def __init__(self, *names: str) -> None:
        self._id = secrets.token_hex(3)
        self._subnet = f"{_RANGE}.{secrets.randbelow(256)}"
        self._names = names
        self._made: list[str] = []
        self.hosts = {name: Host(name, f"{self._subnet}.{10 + i}", self) for i, name in enumerate(names)}

    def namespace(self, name: str) -> str:
        return f"flet-{self._id}-{name}"

    def open(self) -> None:
        switch = self._add("switch")
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for name, host in self.hosts.items():
            self._plug(name, host.address, self._add(name))
        self._plug("test", f"{self._subnet}.1", None)

    def _add(self, name: str) -> str:
        namespace = self.namespace(name)
        _ip("netns", "add", namespace)
        self._made.append(namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        return namespace

    def _plug(self, name: str, address: str, namespace: str | None) -> None:
        switch, inside = self.namespace("switch"), f"fl{self._id}" if namespace is None else "eth0"
        of = ("-n", namespace) if namespace is not None else ()
        _ip(*of, "link", "add", inside, "type", "veth", "peer", "name", f"to-{name}", "netns", switch)
        _ip("-n", switch, "link", "set", f"to-{name}", "master", "bridge", "up")
        _ip(*of, "address", "add", f"{address}/24", "dev", inside)
        _ip(*of, "link", "set", inside, "up")

    def part(self, *names: str) -> None:
        """These hosts hear nothing of each other any more, but all of the others."""
        for name in self._names:
            self._isolate(name, name in names)

    def heal(self) -> None:
        self.part()

    def _isolate(self, name: str, isolated: bool) -> None:
        command = ["bridge", "-n", self.namespace("switch"), "link", "set", "dev", f"to-{name}"]
        subprocess.run([*command, "isolated", "on" if isolated else "off"], check=True)

    def close(self) -> None:
        for namespace in self._made:
            subprocess.run(["ip", "netns", "delete", namespace], check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def network(*names: str) -> Iterator[Network]:
    """A network with these hosts. Where it cannot be made, the test is skipped loudly, and in CI fails."""
    made = Network(*names)
    try:
        try:
            made.open()
        except (OSError, subprocess.CalledProcessError) as error:
            _cannot(f"network namespaces cannot be made here: {getattr(error, 'stderr', None) or error}")
        yield made
    finally:
        made.close()


def _cannot(why: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(f"NOT TESTED: {why}")
