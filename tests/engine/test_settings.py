"""Where settings come from, and that no secret is ever printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import ConfigurationError, UsageError
from runner.settings import Settings, duration, load_settings, redact, scrub

SECRET = "hunter2secret"


def write(directory: Path, text: str) -> Path:
    file = directory / "runner.toml"
    file.write_text(text)
    return file


def test_the_command_line_wins_then_the_environment_then_the_file(tmp_path: Path) -> None:
    write(tmp_path, 'database_url = "dbname=file"')
    environ = {"DATABASE_URL": "dbname=environment"}

    def conninfo(url: str | None, env: dict[str, str]) -> str:
        return load_settings(database_url=url, environ=env, directory=tmp_path).conninfo

    assert conninfo("dbname=option", environ) == "dbname=option"
    assert conninfo(None, environ) == "dbname=environment"
    assert conninfo(None, {}) == "dbname=file"


def test_nothing_given_leaves_it_to_libpq(tmp_path: Path) -> None:
    settings = load_settings(environ={}, directory=tmp_path)
    assert settings == Settings()
    assert settings.shown == "libpq's defaults"


def test_the_nearest_file_upward_is_used_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    write(tmp_path, 'migrations = "sql"\nlock_timeout = "2s"\nretries = 0\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    settings = load_settings(environ={}, directory=below)
    assert (settings.migrations, settings.lock_timeout, settings.retries) == (tmp_path / "sql", 2_000, 0)


def test_config_names_another_file(tmp_path: Path) -> None:
    write(tmp_path, "retries = 1")
    other = tmp_path / "other.toml"
    other.write_text("retries = 7")
    assert load_settings(config=other, environ={}, directory=tmp_path).retries == 7
    with pytest.raises(ConfigurationError, match="there is no such file"):
        load_settings(config=tmp_path / "none.toml", environ={})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("lock_timout = 5", "unknown key 'lock_timout'"),
        ('lock_timeout = "soon"', "lock_timeout = 'soon'"),
        ("lock_timeout = true", "lock_timeout = True"),
        ("lock_timeout = -1", "lock_timeout = -1"),
        ("retries = 101", "retries = 101"),
        ("database_url = 5", "database_url: expected a text"),
        ("retries = ", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_key_and_value(tmp_path: Path, text: str, named: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ={}, directory=tmp_path)
    assert str(file) in str(caught.value)
    assert named in str(caught.value)
    assert isinstance(caught.value, UsageError)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("value", "milliseconds"), [(0, 0), (5, 5), ("250ms", 250), ("5s", 5_000), ("2min", 120_000), ("1h", 3_600_000)]
)
def test_durations_are_read_as_postgresql_reads_them(value: object, milliseconds: int) -> None:
    assert duration(value) == milliseconds


@pytest.mark.parametrize(
    "conninfo",
    [
        f"postgresql://me:{SECRET}@db.example:5433/money",
        f"postgres://me@db.example:5433/money?password={SECRET}&sslmode=require",
        f"host=db.example port=5433 dbname=money user=me password={SECRET}",
        f"host=db.example port=5433 dbname=money user=me password='{SECRET} x' sslpassword={SECRET}",
    ],
)
def test_the_connection_is_shown_without_its_password(conninfo: str) -> None:
    for shown in (redact(conninfo), Settings(conninfo=conninfo).shown):
        assert SECRET not in shown
        assert {"host=db.example", "port=5433", "dbname=money", "user=me"} <= set(shown.split())
    assert SECRET not in repr(Settings(conninfo=conninfo))


# libpq takes some of these apart in the wrong place, and a piece of the password becomes a host or a database.
MALFORMED = [
    f"postgresql://me:p@{SECRET}@db.example/money",
    f"postgresql://me:12/{SECRET}@db.example/money",
    f"postgresql://me:{SECRET}/x@db.example/money",
    f"postgresql://me:12?{SECRET}@db.example/money",
    f"postgresql://me:{SECRET}#@db.example/money?x",
    f"postgresql://me:%zz{SECRET}@db.example/money",
    f"postgresql://me:12/{SECRET}%zz@db.example",
    f"host=db.example pasword={SECRET}",
    f"password='{SECRET}",
    SECRET,
]


@pytest.mark.parametrize("conninfo", MALFORMED)
def test_nothing_of_a_malformed_connection_is_repeated(conninfo: str, tmp_path: Path) -> None:
    assert SECRET not in redact(conninfo)
    if redact(conninfo).startswith("the connection string cannot be read"):
        with pytest.raises(ConfigurationError, match="cannot be read") as caught:
            load_settings(database_url=conninfo, environ={}, directory=tmp_path)
        assert SECRET not in str(caught.value)
        assert "--database-url" in str(caught.value)


def test_broken_toml_with_a_password_is_not_repeated(tmp_path: Path) -> None:
    write(tmp_path, f'database_url = "postgresql://me:{SECRET}@h/d\n')
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ={}, directory=tmp_path)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_scrub_takes_secrets_out_of_other_peoples_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "fromenvironment")
    text = scrub(f"failed with {SECRET} and fromenvironment", f"host=h password={SECRET}")
    assert text == "failed with **** and ****"
