"""The embedded server: start, stop, find again, long paths, crashes, and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import psycopg
import pytest

from runner import embedded
from runner.errors import EmbeddedServerError


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the server's user may enter, which pytest's own are not when root runs the tests."""
    path = tmp_path_factory.mktemp("server")
    if os.geteuid() == 0:
        for directory in (path, *path.parents[:4]):  # a worker of several has a directory of its own between
            if directory.name.startswith(("pytest-", "popen-")) or directory == path:
                directory.chmod(0o711)
    return path


def test_data_survives_a_stop_and_stopping_twice_is_harmless(place: Path) -> None:
    server = embedded.start(place / "data")
    with psycopg.connect(server.url()) as conn:
        conn.execute("create table kept ()")
    server.stop()
    server.stop()
    assert embedded.find(place / "data") is None
    again = embedded.start(place / "data")
    try:
        with psycopg.connect(again.url()) as conn:
            assert conn.execute("select to_regclass('kept')::text").fetchone() == ("kept",)
    finally:
        again.stop()


def test_starting_twice_gives_the_same_server(place: Path) -> None:
    server = embedded.start(place / "data")
    try:
        assert embedded.start(place / "data") == server
    finally:
        server.stop()


def test_it_listens_on_a_private_socket_only(server: embedded.Server) -> None:
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
    with psycopg.connect(server.url()) as conn:
        assert conn.execute("show listen_addresses").fetchone() == ("",)


def test_a_long_path_gets_a_short_socket(place: Path) -> None:
    data = place / ("long" * 20) / ("path" * 20) / "data"
    server = embedded.start(data)
    try:
        assert server.socket != data
        with psycopg.connect(server.url()) as conn:
            assert conn.execute("select 1").fetchone() == (1,)
    finally:
        server.stop()
    assert not server.socket.exists()


@pytest.mark.parametrize("name", ["two words", '12" records', "100 %", "$HOME"])
def test_a_demo_in_a_folder_of_an_odd_name(place: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (place / name).mkdir()
    monkeypatch.chdir(place / name)
    data = embedded.default_data_directory()
    server = embedded.start(data)
    try:
        with psycopg.connect(server.url()) as conn:
            assert conn.execute("select 1").fetchone() == (1,)
    finally:
        server.stop()
        if place not in data.parents:
            shutil.rmtree(data.parent)


def test_a_crash_is_recovered_from(place: Path) -> None:
    server = embedded.start(place / "data")
    with psycopg.connect(server.url()) as conn:
        conn.execute("create table kept ()")
    server.kill()
    assert embedded.find(place / "data") is None
    again = embedded.start(place / "data")
    try:
        with psycopg.connect(again.url()) as conn:
            assert conn.execute("select to_regclass('kept')::text").fetchone() == ("kept",)
    finally:
        again.stop()


def test_the_programs_are_of_the_servers_version(server: embedded.Server) -> None:
    done = subprocess.run([server.programs / "pg_dump", "--version"], capture_output=True, text=True, check=True)
    assert f" {server.version}." in done.stdout


def test_a_version_that_is_not_here_is_named_with_the_way_out() -> None:
    with pytest.raises(EmbeddedServerError, match=r"PostgreSQL 9 is not here.*install postgresql-9 or"):
        embedded.programs(9)


def test_data_of_another_version_is_refused(place: Path) -> None:
    embedded.start(place / "data", version=16).stop()
    with pytest.raises(EmbeddedServerError, match="holds data of PostgreSQL 16, not 18"):
        embedded.start(place / "data", version=18)


def test_a_server_that_cannot_start_shows_its_log(place: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="nosuchsetting"):
        embedded.start(place / "data", options={"nosuchsetting": "1"})


def test_the_environment_of_a_caller_does_not_reach_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    server = embedded.start(place / "data")
    try:
        assert server.environment()["PGPORT"] == "5432"
        assert server.alive()
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root switches user")
def test_root_is_told_which_directory_is_closed(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerError, match=f"may not enter {closed}"):
        embedded.start(closed / "data")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700, "nobody's permissions are opened"
