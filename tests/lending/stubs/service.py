"""A real HTTP server on loopback with planned faults: what the stubs of both services stand on."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived; `body` is decoded JSON."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Any
    raw: bytes


@dataclass(slots=True)
class Reply:
    """What is sent back; with `cut` only so many bytes of it, then the connection ends."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    announced: bool = True
    """Whether its length is; else only the end of the connection ends it."""


@dataclass(slots=True)
class Fault:
    """Answer this instead, the next `times` that a path begins so.

    `after_the_work`: the service does what it is asked, and only its answer is replaced.
    """

    path: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    times: int = 1
    cut: int | None = None
    announced: bool = True
    after_the_work: bool = False


class Service(ABC):
    """Subclasses answer in `handle`. Counts, keeps and may interrupt requests."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.on_request: Callable[[int], None] = lambda _: None
        """Called with the number of the request when its work is done and nothing is answered yet."""
        self.at_work = self.most_at_work = 0
        self._lock = threading.RLock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                service._serve(self)

            do_GET = do_POST = _serve  # noqa: N815 - the base class wants these names

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                pass  # the client was killed: that is what the test is about

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    def paths(self) -> list[str]:
        """What was asked, in order."""
        return [f"{request.method} {request.path}" for request in self.requests]

    @abstractmethod
    def handle(self, request: Request) -> Reply:
        """The service's own answer. Called by one thread at a time."""

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        parts = urlsplit(handler.path)
        body = json.loads(raw) if raw else None
        request = Request(
            handler.command, parts.path, dict(parse_qsl(parts.query)), dict(handler.headers.items()), body, raw
        )
        with self._lock:
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
            self.requests.append(request)
            number = len(self.requests)
            fault = next((f for f in self.faults if f.times > 0 and request.path.startswith(f.path)), None)
            if fault is None or fault.after_the_work or fault.cut is not None:
                reply = self.handle(request)
            if fault is not None:
                fault.times -= 1
                if fault.cut is not None:
                    reply.cut, reply.announced = fault.cut, fault.announced
                else:
                    reply = Reply(fault.status, fault.body, fault.headers)
        try:
            self.on_request(number)
            self._send(handler, reply)
        finally:
            with self._lock:
                self.at_work -= 1

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        content = json.dumps(reply.body).encode()
        handler.send_response(reply.status)
        handler.send_header("Content-Type", "application/json")
        if reply.announced:
            handler.send_header("Content-Length", str(len(content)))
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content if reply.cut is None else content[: reply.cut])
        if reply.cut is not None:
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.close()
