"""The private sockets of workers: Unix sockets in a private directory, or TCP on the private network."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .wire import LinkError, Stream

# A server that comes back to life finds all its browsers' reconnects at its workers' doors at once.
BACKLOG = 1024
_SUFFIX = ".sock"
# Workers of one machine that listen at ports from a given one on.
_PORTS = 256
# What `sun_path` holds, less its NUL (unix(7)).
_LONGEST = 107
# Who says that nobody will ever answer there again: no process has the socket.
_DEAD = (errno.ECONNREFUSED, errno.ENOENT)


@dataclass(frozen=True, slots=True)
class Place:
    """Where this worker listens: in `folder`, or at `host` and `port` if workers of other hosts are to reach it.

    Those are told `shown` in place of `host`, if that means all addresses.
    """

    folder: Path | None = None
    host: str = ""
    port: int = 0
    shown: str = ""


def listen_in(folder: Path, name: str) -> tuple[socket.socket, Path]:
    """A listening Unix socket `name` in `folder`, and its path; blocks.

    It gets its name when it listens already: whoever finds a socket that refuses knows that its process is gone.
    """
    path, made = folder / f"{name}{_SUFFIX}", folder / f".{name}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        made.unlink(missing_ok=True)
        with _reachable(made) as short:
            listener.bind(short)
        made.chmod(0o600)
        listener.listen(BACKLOG)
        made.rename(path)
    except BaseException:
        listener.close()
        with suppress(OSError):
            made.unlink()
        raise
    return listener, path


def sweep(folder: Path) -> int:
    """Remove the sockets of processes that were killed; how many there were. Blocks."""
    swept = 0
    for path in folder.glob(f"*{_SUFFIX}"):
        if _is_dead(path):
            with suppress(OSError):
                path.unlink()
                swept += 1
    return swept


def _is_dead(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a process that is stopped does not accept, but lives
        try:
            with _reachable(path) as short:
                probe.connect(short)
        except OSError as error:
            return error.errno == errno.ECONNREFUSED
    return False


@contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A name for `path` that a socket address has room for, however long it is."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen_at(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 is a free one, of another one the next that is free is taken. Blocks."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, port + (_PORTS if port else 1)):
        try:
            listener = socket.create_server((host, candidate), family=family, backlog=BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not port:
                raise
        else:
            listener.setblocking(False)
            return listener
    raise OSError(errno.EADDRINUSE, f"the ports {port} to {port + _PORTS - 1} are in use")


def address_towards(host: str, port: int) -> str:
    """The address of this machine that packets to `host` leave from. Blocks."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)  # sends nothing
        return str(probe.getsockname()[0])


def tcp_address(host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def is_local(address: str) -> bool:
    """Whether only processes of this user on this machine can be at `address`."""
    return address.startswith("unix:")


async def connect(address: str, factory: Callable[[], Stream]) -> Stream:
    """A connection to the worker at `address`; the caller bounds the time.

    Raises:
        NobodyThere: no process has that Unix socket any more.
        LinkError: it cannot be reached.
    """
    loop = asyncio.get_running_loop()
    try:
        if is_local(address):
            held = _connected(Path(address.removeprefix("unix:")))
            _, stream = await loop.create_unix_connection(factory, sock=held)
        else:
            parts = urlsplit(address)
            if parts.scheme != "tcp" or not parts.hostname or not parts.port:
                raise LinkError("no address of a worker")
            _, stream = await loop.create_connection(factory, parts.hostname, parts.port)
    except LinkError:
        raise
    except (OSError, ValueError) as error:
        if is_local(address) and getattr(error, "errno", None) in _DEAD:
            raise NobodyThere("its process has ended") from None
        raise LinkError(str(error)) from None
    return stream


class NobodyThere(LinkError):
    """The worker is gone for good."""


def _connected(path: Path) -> socket.socket:
    # a Unix socket connects at once or not at all: there is nothing to wait for
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.setblocking(False)
        with _reachable(path) as short:
            held.connect(short)
    except BaseException:
        held.close()
        raise
    return held
