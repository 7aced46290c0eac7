"""What an answer of a service may cost at most: seconds from the first byte asked to the last one had, and bytes.

A timeout of the driver bounds the wait for the next bytes only. A service that sends one a minute, packs 600 MB of
zeros into a few kilobytes or nests brackets without end keeps to it.
"""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpcore
import httpx

PACKED: Final = {"": 0, "identity": 0, "gzip": 47, "x-gzip": 47, "deflate": 47}
"""Content-Encoding to the window bits of zlib; 0: not packed. No other is asked for."""


class CutOffError(Exception):
    """An answer that was not read to its end; the message says why."""


class _Clock(threading.local):
    """When the answer that this thread waits for must have ended."""

    end = float("inf")

    def left(self, timeout: float | None) -> float:
        """Seconds that a step may still take. Raises CutOffError where there are none."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise CutOffError("did not end in time")
        return left if timeout is None else min(left, timeout)


_CLOCK: Final = _Clock()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """All that this thread reads from and writes to a service in the block ends in so many seconds."""
    _CLOCK.end = time.monotonic() + seconds
    try:
        yield
    except httpx.TimeoutException as exc:
        _CLOCK.left(None)
        raise exc from None
    finally:
        _CLOCK.end = float("inf")


def bound(client: httpx.Client) -> None:
    """Have a client's connections look at the clock at each read and write, those of the headers too."""
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend(pool._network_backend)


def body(answer: httpx.Response, most: int) -> bytes:
    """The body of a streamed answer, unpacked. Raises CutOffError for more than `most` bytes."""
    coding = answer.headers.get("Content-Encoding", "").strip().lower()
    if coding not in PACKED:
        raise CutOffError(f"is packed as {coding[:20]}, which was not asked for")
    unpack = zlib.decompressobj(PACKED[coding]) if PACKED[coding] else None
    parts, size = [], 0
    for raw in answer.iter_raw():
        part = raw if unpack is None else _unpacked(unpack, raw, most + 1 - size)
        size += len(part)
        if size > most:
            raise CutOffError(f"is longer than {most:,} bytes{' unpacked' if unpack else ''}")
        parts.append(part)
    return b"".join(parts)


def parsed(content: bytes) -> Any:
    """JSON, decimals as text: a float would have lost what money is made of. Raises ValueError, and CutOffError."""
    try:
        return json.loads(content, parse_float=str, parse_constant=str)
    except RecursionError:
        raise CutOffError("is nested too deeply") from None


def _unpacked(unpack: Any, raw: bytes, most: int) -> bytes:
    try:
        part: bytes = unpack.decompress(raw, most)
    except zlib.error as exc:
        raise httpx.DecodingError(str(exc)) from exc
    return part


class _Backend(httpcore.NetworkBackend):
    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        return _Stream(self._inner.connect_tcp(host, port, _CLOCK.left(timeout), local_address, socket_options))

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _CLOCK.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _CLOCK.left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, _CLOCK.left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
