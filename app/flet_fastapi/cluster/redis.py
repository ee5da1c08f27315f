"""The cluster of many hosts: keys and the directory of workers in Redis (6.2 or later) or Valkey.

Each operation is one command or one script, and touches one key: Redis runs it whole or not at all, and Redis Cluster
knows where it belongs. Times of expiry are Redis's own, so the clocks of the workers do not matter.
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

import orjson
import redis.exceptions as errors
from redis.asyncio import Connection, ConnectionPool, Redis, RedisCluster, Sentinel, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff

from .base import Cluster, ClusterUnavailable, WorkerInfo
from .breaker import Breaker
from .urls import RedisAddress

_SWAP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(ARGV[3]) > 0 then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) else redis.call('DEL', KEYS[1]) end
return 1
"""
_DELETE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
# What GET returns is text: Lua's own numbers lose digits from 2^53 on.
_INCREASE = """
redis.call('INCRBY', KEYS[1], ARGV[1])
local number = redis.call('GET', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return number
"""
# A hash of id -> "time of expiry, what the worker says"; as a whole it goes with the last of them.
_ANNOUNCE = """
local time = redis.call('TIME')
local now, ttl = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2])
local said = redis.call('HGET', KEYS[1], ARGV[1])
local expires = said and tonumber(string.match(said, '^%d+')) or 0
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now + ttl, ARGV[3]))
if redis.call('PTTL', KEYS[1]) < ttl then redis.call('PEXPIRE', KEYS[1], ttl) end
return expires > now and 1 or 0
"""
_WORKERS = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all, living = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  local expires, said = string.match(all[i + 1], '^(%d+) (.*)$')
  if tonumber(expires or 0) > now then living[#living + 1] = said else redis.call('HDEL', KEYS[1], all[i]) end
end
return living
"""

# Of a sentinel, or a node that is asked for the others; one that hangs must leave time to ask the next.
_SENTINEL_SECONDS = 0.5
_PROBLEM_LENGTH = 200
# Redis shows what it was told in the error on a command that it does not know, or that somebody has renamed.
_TOLD = re.compile(r",? with args beginning with.*", re.DOTALL)
_AWAY = (
    errors.ConnectionError,  # refused passwords and LOADING are of this kind, too
    errors.TimeoutError,
    errors.ReadOnlyError,
    errors.ClusterDownError,
    errors.RedisClusterException,
    errors.InvalidResponse,  # no Redis
    OSError,
)
_DENIED = (errors.AuthenticationError, errors.AuthorizationError, errors.NoPermissionError)
# How redis-py shows what a sentinel said; how Redis says that it is too old, or that a command was renamed
_SAYS_DENIED = re.compile(r"auth:AuthenticationError|unknown command")
_FIELDS = frozenset(field.name for field in fields(WorkerInfo))


class SharedCluster(Cluster):
    """Keys in the Redis at `address`, below its prefix.

    A command that may have reached Redis is not sent again: to take a key twice would lose what it held.
    """

    def __init__(self, address: RedisAddress) -> None:
        self.address = address
        self._client: Redis | RedisCluster | None = None
        self._sentinel: Sentinel | None = None
        self._opening = asyncio.Lock()
        # commands at once: the rest wait here and not in redis-py, whose pool for Redis Cluster refuses them
        self._places = asyncio.Semaphore(address.max_connections)
        self._breaker = Breaker(self._look)
        self._workers = f"{address.prefix}:workers"
        self._failed = self._workers

    async def put(self, key: str, value: bytes, ttl_seconds: float) -> None:
        ttl = _milliseconds(ttl_seconds)
        if ttl > 0:
            await self._run("SET", self._key(key), value, "PX", ttl)
        else:
            await self._run("DEL", self._key(key))

    async def get(self, key: str) -> bytes | None:
        return cast("bytes | None", await self._run("GET", self._key(key), again=True))

    async def take(self, key: str) -> bytes | None:
        return cast("bytes | None", await self._run("GETDEL", self._key(key)))

    async def add(self, key: str, value: bytes, ttl_seconds: float) -> bool:
        ttl = _milliseconds(ttl_seconds)
        if ttl <= 0:
            return await self.get(key) is None
        return bool(await self._run("SET", self._key(key), value, "NX", "PX", ttl))

    async def swap(self, key: str, expected: bytes, value: bytes, ttl_seconds: float) -> bool:
        return bool(await self._eval(_SWAP, self._key(key), expected, value, _milliseconds(ttl_seconds)))

    async def delete(self, key: str, expected: bytes | None = None) -> bool:
        if expected is None:
            return bool(await self._run("DEL", self._key(key)))
        return bool(await self._eval(_DELETE, self._key(key), expected))

    async def increase(self, key: str, amount: int, ttl_seconds: float) -> int:
        return int(await self._eval(_INCREASE, self._key(key), amount, _milliseconds(ttl_seconds)))

    async def announce(self, worker: WorkerInfo, ttl_seconds: float) -> bool:
        ttl = _milliseconds(ttl_seconds)
        return bool(await self._eval(_ANNOUNCE, self._workers, worker.id, ttl, orjson.dumps(worker), again=True))

    async def withdraw(self, worker_id: str) -> None:
        await self._run("HDEL", self._workers, worker_id)

    async def workers(self) -> list[WorkerInfo]:
        return sorted(map(_worker, await self._eval(_WORKERS, self._workers, again=True)), key=lambda worker: worker.id)

    async def check(self) -> None:
        # an old Redis, or one that allows our user less, says so now
        look = f"{self.address.prefix}:look"
        await self._run("SET", look, b"", "PX", 1000)
        await self._run("GETDEL", look)
        await self.workers()

    async def close(self) -> None:
        await self._breaker.close()
        for client in (self._client, self._sentinel):
            if client is not None:
                await client.aclose()
        self._client = self._sentinel = None

    def _key(self, key: str) -> str:
        return f"{self.address.prefix}:key:{key}"

    async def _eval(self, script: str, key: str, *arguments: Any, again: bool = False) -> Any:
        return await self._run("EVAL", script, 1, key, *arguments, again=again)

    async def _run(self, *command: Any, again: bool = False) -> Any:
        """`again`: it does no harm if it is done twice, so a connection that turns out to be closed is no failure."""
        self._breaker.check()
        try:
            return await self._send(*command, again=again)
        except ClusterUnavailable as error:
            if error.away:
                self._failed = command[3] if command[0] == "EVAL" else command[1]
                self._breaker.trip(error)
            raise

    async def _look(self) -> None:
        """Write where the command that failed would have: replicas, and what is left of a Redis Cluster, can be read.

        Raises:
            ClusterUnavailable: the store is away.
        """
        try:
            await self._send("SET", f"{self.address.prefix}:look:{{{_hash_tag(self._failed)}}}", b"", "PX", 1000)
        except ClusterUnavailable as error:
            if error.away:
                raise

    async def _send(self, *command: Any, again: bool = False) -> Any:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        asked_to_end = task.cancelling()
        answer, problem = None, None
        try:
            async with asyncio.timeout(self.address.connect_timeout + self.address.timeout), self._places:
                answer = await self._execute(command, again)
        except (errors.RedisError, errors.RedisClusterException, OSError) as error:
            # not as the cause: its own text may show more of what Redis was told
            problem = _unavailable(self.address, error)
        # redis-py waits with `wait_for`, which before Python 3.12 loses a cancellation now and then (gh-86296)
        if task.cancelling() > asked_to_end:
            raise asyncio.CancelledError
        if problem is not None:
            raise problem
        return answer

    async def _execute(self, command: tuple[Any, ...], again: bool) -> Any:
        client = await self._opened()
        try:
            return await client.execute_command(*command)
        except errors.ReadOnlyError:
            await self._hang_up()
            raise
        except errors.ConnectionError as error:
            if not again or type(error) is not errors.ConnectionError:
                raise
        return await client.execute_command(*command)

    async def _opened(self) -> Redis | RedisCluster:
        if self._client is None:
            async with self._opening:
                if self._client is None:
                    self._client, self._sentinel = await _open(self.address)
        return self._client

    async def _hang_up(self) -> None:
        """A replica answered: the next connection may lead to the new master, by the name's new address."""
        if isinstance(self._client, Redis):
            await self._client.connection_pool.disconnect(inuse_connections=False)


class _SharedContext:
    """Connections over TLS that do not each read all certificates of the system."""

    def __init__(self, tls_context: ssl.SSLContext, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.ssl_context.context = tls_context  # type: ignore[attr-defined]


class _TlsConnection(_SharedContext, SSLConnection):
    pass


class _SentinelTlsConnection(_SharedContext, SentinelManagedSSLConnection):
    pass


async def _open(address: RedisAddress) -> tuple[Redis | RedisCluster, Sentinel | None]:
    """A client, which connects when it is used; that of a Redis Cluster has to know its nodes before."""
    tls = {} if address.tls is None else {"tls_context": await asyncio.to_thread(_tls_context, address.tls)}
    if address.form == "cluster":
        # before it knows the nodes, redis-py sends commands to any of them
        return await _cluster(address, tls).initialize(), None
    arguments = {**_arguments(address), "db": address.db, "max_connections": address.max_connections, **tls}
    if address.form == "sentinel":
        sentinel = Sentinel(address.hosts, sentinel_kwargs=_sentinel_arguments(address))  # type: ignore[no-untyped-call]
        managed = _SentinelTlsConnection if tls else SentinelManagedConnection
        return sentinel.master_for(address.master, connection_class=managed, **arguments), sentinel
    if address.form == "unix":
        pool = ConnectionPool(connection_class=UnixDomainSocketConnection, path=address.path, **arguments)
    else:
        (host, port), kind = address.hosts[0], _TlsConnection if tls else Connection
        pool = ConnectionPool(connection_class=kind, host=host, port=port, **arguments)
    return Redis.from_pool(pool), None


def _cluster(address: RedisAddress, tls: Mapping[str, Any]) -> RedisCluster:
    client = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
        # what is not answered by one of its nodes in this time may be by another
        **{**_arguments(address), "socket_timeout": min(_SENTINEL_SECONDS, address.timeout)},
        # a key that was moved is no reason to close all connections, and fail what is under way on them
        reinitialize_steps=0,
        # a connection that is being closed counts still
        max_connections=2 * address.max_connections,
        ssl=bool(tls),
        **(address.tls or {}),
    )
    if tls:
        client.nodes_manager.connection_kwargs.update(tls, connection_class=_TlsConnection)
    return client


def _arguments(address: RedisAddress) -> dict[str, Any]:
    return {
        "username": address.username,
        "password": address.password,
        "socket_timeout": address.timeout,
        "socket_connect_timeout": address.connect_timeout,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,
    }


def _sentinel_arguments(address: RedisAddress) -> dict[str, Any]:
    seconds = min(_SENTINEL_SECONDS, address.timeout)
    return {
        **_arguments(address),
        "username": address.sentinel_username,
        "password": address.sentinel_password,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        **({} if address.tls is None else {"ssl": True, **address.tls}),
    }


def _tls_context(tls: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.get("ssl_ca_certs"))
    context.check_hostname = tls["ssl_check_hostname"]
    context.verify_mode = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL}.get(
        tls["ssl_cert_reqs"], ssl.CERT_REQUIRED
    )
    if "ssl_certfile" in tls:
        context.load_cert_chain(tls["ssl_certfile"], tls.get("ssl_keyfile"))
    return context


def _unavailable(address: RedisAddress, error: BaseException) -> ClusterUnavailable:
    denied = _is_denied(error)
    return ClusterUnavailable(
        address.place,
        _problem(address, error, denied),
        full=isinstance(error, errors.OutOfMemoryError) or "OOM command not allowed" in str(error),
        away=isinstance(error, _AWAY) or denied,
        denied=denied,
    )


def _is_denied(error: BaseException | None) -> bool:
    """Whether a refused password is at the root of it: sentinels and clusters say first that none of them answers."""
    while error is not None:
        if isinstance(error, _DENIED) or _SAYS_DENIED.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _problem(address: RedisAddress, error: BaseException, denied: bool) -> str:
    said = _TOLD.sub("", str(error))[:_PROBLEM_LENGTH].strip()
    if denied:
        return f"does not accept the user name or password, or a command that is needed: {said}"
    if isinstance(error, errors.ReadOnlyError) or "now a slave" in said:
        return "is a replica, which cannot be written to"
    if isinstance(error, TimeoutError | errors.TimeoutError):
        return f"does not answer within {address.connect_timeout + address.timeout:g} s"
    if isinstance(error, errors.OutOfMemoryError):
        return "has no memory left (maxmemory)"
    return said or type(error).__name__


def _hash_tag(key: str) -> str:
    """What of `key` Redis Cluster looks at (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/)."""
    tag = re.match(r"[^{]*\{([^}]+)\}", key)
    return tag[1] if tag is not None else key


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _worker(said: bytes) -> WorkerInfo:
    # what a later version may say in addition is left out
    return WorkerInfo(**{name: value for name, value in orjson.loads(said).items() if name in _FIELDS})
