"""Services that drip, pack or nest without end, on loopback: each is cut off with one message; no database."""

from __future__ import annotations

import gzip
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from runner.lending import bounds
from runner.lending import rotessa as rotessa_
from runner.lending.client import RemoteError, RemoteUnavailableError
from runner.settings import Settings
from tests.story import peak

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def service(answer: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[int]]]:
    """A server that answers each connection as it likes; how many there were."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen: list[int] = []

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.recv(65_536)
                answer(connection)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                seen.append(1)
                threading.Thread(target=one, args=[connection], daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", seen
        listener.shutdown(socket.SHUT_RDWR)


def customers(url: str, **table: object) -> list[rotessa_.Row]:
    settings = Settings(tables={"lending": {"rotessa": {"host": url, "first_wait": "5ms", "tries": 3, **table}}})
    with rotessa_.Rotessa(rotessa_.configure(settings, environment={"ROTESSA_TOKEN": "key"})) as api:
        return api.customers()


def dripping(before: bytes, drop: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(before)
        for _ in range(200):
            connection.sendall(drop)
            time.sleep(0.05)

    return answer


@pytest.mark.parametrize(
    "answer",
    [dripping(HEAD + b"Content-Length: 100000\r\n\r\n[", b" "), dripping(HEAD, b"X"), dripping(HEAD, b"X-A: b\r\n")],
    ids=["body", "a header", "headers"],
)
def test_a_service_that_drips_is_cut_off(answer: Callable[[socket.socket], None]) -> None:
    with service(answer) as (url, seen):
        with pytest.raises(RemoteError, match=r"did not end in time, and was cut off.*kept.*answer_time") as caught:
            customers(url, answer_time="400ms", timeout="5s")
        assert not isinstance(caught.value, RemoteUnavailableError)
        assert len(seen) == 1  # asked again it would drip again


def test_a_service_that_says_nothing_is_asked_again_as_before() -> None:
    with service(lambda connection: time.sleep(0.3)) as (url, seen), pytest.raises(RemoteUnavailableError):
        customers(url, timeout="100ms", answer_time="60s")
    assert len(seen) == 3


BOMB = """
import gzip, sys
from runner.lending.client import RemoteError
from tests.lending.test_bounds import customers
try:
    customers(sys.argv[1])
except RemoteError as exc:
    print(exc)
"""


def test_600_mb_behind_gzip_cost_no_memory() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(600)) + packer.flush()
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with service(lambda connection: connection.sendall(head + packed)) as (url, seen):
        used, said = peak(sys.executable, "-c", BOMB, url, code=0)
    assert "is longer than 67,108,864 bytes unpacked, and was cut off" in said
    assert len(seen) == 1
    assert used < 250


@pytest.mark.parametrize(
    ("head", "body", "words"),
    [
        (b"", b"[" * 200_000 + b"]" * 200_000, "is nested too deeply"),
        (b"", b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "is nested too deeply"),
        (b"Content-Encoding: br\r\n", b"[]", "is packed as br, which was not asked for"),
        (b"", b" " * 70_000 + b"[]", "is longer than 65,536 bytes, and"),
    ],
    ids=["arrays", "objects", "another packing", "plain and long"],
)
def test_what_no_service_answers_is_one_clear_message(head: bytes, body: bytes, words: str) -> None:
    whole = HEAD + head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    more = {"answer_bytes": 65_536} if "65,536" in words else {}
    with service(lambda connection: connection.sendall(whole)) as (url, seen):
        with pytest.raises(RemoteError, match=words):
            customers(url, **more)
        assert len(seen) == 1


@pytest.mark.parametrize("packing", ["gzip", "deflate", ""])
def test_what_is_packed_as_asked_is_read(packing: str) -> None:
    body = b'[{"id": 1, "name": "Ada", "amount": 0.1}]'
    packed = gzip.compress(body) if packing == "gzip" else zlib.compress(body) if packing else body
    head = HEAD + (b"Content-Encoding: %b\r\n" % packing.encode() if packing else b"")
    whole = head + b"Content-Length: %d\r\n\r\n" % len(packed) + packed
    with service(lambda connection: connection.sendall(whole)) as (url, _):
        assert customers(url) == [{"id": 1, "name": "Ada"}]


def test_the_clock_of_one_request_is_not_the_next_ones() -> None:
    with bounds.within(0.0):
        pass
    assert bounds._CLOCK.left(7) == 7
