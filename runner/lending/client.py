"""Remote services, asked politely: few requests at once, again after 429, 5xx and cut connections, never for ever."""

from __future__ import annotations

import email.utils
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from runner.errors import ConfigurationError, RunnerError
from runner.lending import bounds
from runner.settings import Settings, duration

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

SERVICES = ("rotessa", "formance")
RETRIED = frozenset({429, 500, 502, 503, 504})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class RemoteError(RunnerError):
    """A service answered something that its contract does not know; what was landed or confirmed before is kept."""


class RemoteUnavailableError(RemoteError):
    """A service did not answer as it should for as often as it was asked: 429, 5xx, no or a cut connection."""


class RemoteAccessError(RemoteError):
    """A service refuses the token (401, 403)."""


class RemoteNotFoundError(RemoteError):
    """A service does not know what was asked for (404)."""


class RemoteRefusedError(RemoteError):
    """A service cannot take what it was asked (400, 406, 413, 422); its code is named, its text with digits masked."""


@dataclass(frozen=True, slots=True)
class Manners:
    """How a service is asked. Seconds; `tries` counts the first one too."""

    concurrency: int = 4
    tries: int = 6
    timeout: float = 60.0
    first_wait: float = 0.5
    """Doubled with each try, jittered, up to `longest_wait`, unless Retry-After asks for longer."""
    longest_wait: float = 30.0
    patience: float = 600.0
    """A Retry-After longer than this is not waited for: it is named, and the command ends."""
    answer_time: float = 300.0
    """From the request to the last byte of its answer; `timeout` is for each wait within it."""
    answer_bytes: int = 1 << 26
    """Of one answer, unpacked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `body` is the decoded JSON (decimals as text), None where it was none."""

    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Access:
    """Where a service is and how to ask it. The token is in no repr."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    manners: Manners = field(default_factory=Manners)
    secret: str | None = field(default=None, repr=False)

    def spoken(self, text: object) -> str:
        """What the service says, on one line, at most 200 characters, without the token, should it repeat it."""
        said = str(text).replace(self.secret, "****") if self.secret else str(text)
        return " ".join("".join(c if c.isprintable() else " " for c in said).split())[:200]

    def masked(self, text: object) -> str:
        """As spoken(), with every digit masked: it may quote an account number."""
        return re.sub(r"\d", "#", self.spoken(text))


class Client:
    """One service for one command; `close()` wakes whoever waits. Threads may share it."""

    def __init__(self, access: Access, *, progress: Callable[[str], None] = lambda _: None) -> None:
        self.access = access
        self.progress = progress
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._not_before = 0.0
        parts = urlsplit(access.url)
        self._client = httpx.Client(
            base_url=access.url,
            headers={"Accept": "application/json", "Accept-Encoding": "gzip", **access.headers},
            timeout=access.manners.timeout,
            limits=httpx.Limits(max_connections=access.manners.concurrency),
            trust_env=parts.hostname
            not in _LOOPBACK,  # a proxy of the environment cannot reach this machine's loopback
        )
        bounds.bound(self._client)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wake who waits, close the connections."""
        self._stop.set()
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One answer that is neither 429 nor 5xx and is complete; asked for at most `tries` times.

        Only for requests that may be repeated. Raises RemoteUnavailableError with the last reason.
        """
        manners = self.access.manners
        content = None if body is None else json.dumps(body, ensure_ascii=False, sort_keys=True).encode()
        sent = dict(headers or {}) | ({"Content-Type": "application/json"} if content is not None else {})
        for attempt in range(1, manners.tries + 1):
            self._wait_turn()
            asked_to_wait: float | None = None
            try:
                with (
                    bounds.within(manners.answer_time),
                    self._client.stream(method, path, params=params, content=content, headers=sent) as answer,
                ):
                    if answer.status_code not in RETRIED:
                        return Answer(answer.status_code, _decoded(answer, manners.answer_bytes), answer.headers)
                reason = f"HTTP {answer.status_code}"
                asked_to_wait = retry_after(answer.headers.get("Retry-After"))
            except bounds.CutOffError as exc:
                raise self._cut_off(method, path, exc) from None
            except (httpx.TransportError, httpx.DecodingError, _Incomplete) as exc:
                reason = _explain(exc)
            if asked_to_wait is not None and asked_to_wait > manners.patience:
                reason += f", which asks to wait {asked_to_wait:,.0f} s"
                break
            if attempt < manners.tries:
                self._hold(attempt, asked_to_wait, f"{self.access.name}: {reason}")
        raise RemoteUnavailableError(
            f"{self.access.name} ({self.access.url}) did not answer {method} {path}: {reason}, after {attempt} "
            f"{'try' if attempt == 1 else 'tries'}. What was taken or confirmed before is kept: run the same command "
            "again later, it goes on from there"
        )

    def _cut_off(self, method: str, path: str, why: bounds.CutOffError) -> RemoteError:
        manners = self.access.manners
        return RemoteError(
            f"{self.access.name} ({self.access.url}): the answer to {method} {path} {why}, and was cut off. What was "
            f"taken or confirmed before is kept. An answer may take {manners.answer_time:g} s and "
            f"{manners.answer_bytes:,} bytes: answer_time and answer_bytes in [lending.{self.access.name.lower()}] of "
            "runner.toml"
        )

    def _hold(self, attempt: int, asked_to_wait: float | None, why: str) -> None:
        manners = self.access.manners
        jitter = random.uniform(0.5, 1.5)  # noqa: S311 - so that two clients do not come back together
        seconds = min(manners.longest_wait, manners.first_wait * 2 ** (attempt - 1) * jitter)
        if asked_to_wait is not None:
            seconds = max(seconds, asked_to_wait)
        self.progress(f"{why}; again in {seconds:.1f} s")
        with self._lock:  # all threads wait: it is the service that is busy, not this one request
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _wait_turn(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                left = self._not_before - time.monotonic()
            if left <= 0:
                return
            self._stop.wait(left)
        raise RemoteError(f"{self.access.name}: interrupted")


class _Incomplete(Exception):  # noqa: N818 - never leaves this module
    """A body that ends before it is complete JSON: a connection that was cut where no length was announced."""


def _decoded(answer: httpx.Response, most: int) -> Any:
    content = bounds.body(answer, most)
    try:
        return bounds.parsed(content)
    except ValueError:
        if answer.is_success and content:
            raise _Incomplete from None
        return None


def _explain(exc: Exception) -> str:
    if isinstance(exc, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(exc, httpx.ConnectError):
        return "no connection"
    return "the connection was cut, or the answer is not JSON"


def retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header, in seconds or as an HTTP date, asks to wait; None where it asks nothing."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    with suppress(ValueError):
        then = email.utils.parsedate_to_datetime(text)
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())
    return None


class Throttle:
    """Progress at most once a second: a line for each of ten thousand steps helps nobody. `awake` is called with it."""

    def __init__(self, progress: Callable[[str], None], awake: Callable[[], None] = lambda: None) -> None:
        self._progress, self._awake = progress, awake
        self._last = 0.0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last >= 1:
            self._last = now
            self._progress(text)
            self._awake()


def in_parallel(function: Callable[[I], R], items: Iterable[I], *, workers: int) -> Iterator[tuple[I, R]]:
    """Each item with its result as they come, at most `workers` at work and as many waiting: memory stays flat."""
    rest = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(function, item): item for item in islice(rest, 2 * workers)}
        try:
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    item = running.pop(future)
                    running.update({pool.submit(function, more): more for more in islice(rest, 1)})
                    yield item, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def checked_url(origin: str, url: str, *, secret: bool) -> str:
    """A base address as it is used: https, or http on this machine, without user, query or fragment.

    Raises ConfigurationError; a `secret` travels with the requests.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(f"{origin}: expected https://host[:port][/path]")
    if parts.username or parts.password:
        raise ConfigurationError(f"{origin}: no user or password in the address; it would be printed")
    if secret and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ConfigurationError(f"{origin} = {url!r}: a token is sent over https only (or to this machine)")
    return url.rstrip("/")


def token_of(variable: str, environment: Mapping[str, str]) -> str | None:
    """A token from the environment, or None. Raises ConfigurationError, without it, where no header can carry it."""
    token = environment.get(variable, "").strip()
    if token and not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", token):
        raise ConfigurationError(
            f"{variable} holds a blank, a quote, a backslash or more than ASCII: that is not a token"
        )
    return token or None


def table_of(settings: Settings, service: str) -> Mapping[str, Any]:
    """`[lending.<service>]` of runner.toml. Raises ConfigurationError, without its value, where it is not a table."""
    lending = settings.tables.get("lending", {})
    for name, table in lending.items():
        if name not in SERVICES:
            raise ConfigurationError(f"[lending]: unknown key {name!r}; known are {', '.join(SERVICES)}")
        if not isinstance(table, Mapping):
            raise ConfigurationError(f"[lending] {name}: expected a table, [lending.{name}]")
    found: Mapping[str, Any] = lending.get(service, {})
    return found


def manners_of(section: str, table: Mapping[str, Any], known: Iterable[str]) -> Manners:
    """`tries`, `timeout`, `patience` and, where it is among the `known`, `concurrency` of a table of runner.toml.

    Raises ConfigurationError.
    """
    allowed = {"tries", "timeout", "patience", "first_wait", "answer_time", "answer_bytes", *known}
    for key in table:
        if "token" in key.lower() or "key" in key.lower() or "secret" in key.lower():
            raise ConfigurationError(f"[{section}] {key}: a token is taken from the environment only; take it out here")
        if key not in allowed:
            raise ConfigurationError(f"[{section}]: unknown key {key!r}; known are {', '.join(sorted(allowed))}")
    given: dict[str, Any] = {}
    for key, largest in (("concurrency", 16), ("tries", 20)):
        value = table.get(key, getattr(Manners(), key))
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
            raise ConfigurationError(f"[{section}] {key} = {value!r}: expected a whole number from 1 to {largest}")
        given[key] = value
    if "answer_bytes" in table:
        value = table["answer_bytes"]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigurationError(f"[{section}] answer_bytes = {value!r}: expected a whole number above 0")
        given["answer_bytes"] = value
    for key in ("timeout", "patience", "first_wait", "answer_time"):
        if key in table:
            try:
                given[key] = duration(table[key]) / 1000
            except ValueError as exc:
                raise ConfigurationError(f"[{section}] {key} = {table[key]!r}: {exc}") from exc
    return Manners(**given)
