"""Originals go verbatim into a private store, are read back, and only then count; interrupted, it goes on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import psycopg
import pytest
from fsspec.implementations.local import LocalFileSystem

from runner.invoices.documents import DocumentStoreError
from runner.invoices.load import load_invoices
from runner.settings import Settings
from tests.engine.words import refusal
from tests.invoices.test_load_invoices import row, write
from tests.invoices.world import World
from tests.story import run

PDF = b"%PDF-1.7\n" + bytes(range(256)) * 40


@pytest.fixture
def office(database_url: str) -> Iterator[World]:
    with psycopg.connect(database_url, autocommit=True) as conn:
        world = World.create(conn)
        world.facility("Hillside")
        yield world


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    """A folder with the originals of INV-1 and INV-2."""
    folder = tmp_path / "originals"
    folder.mkdir()
    for number in ("INV-1", "INV-2"):
        (folder / f"{number}.pdf").write_bytes(PDF + number.encode())
    return folder


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    return write(tmp_path, "catalogue.csv", row("INV-1"), row("INV-2", week=8))


def into(settings: Settings, url: object, **storage: object) -> Settings:
    return replace(settings, tables={"invoices": {"documents": str(url), "storage": storage}})


def paths(world: World) -> list[str | None]:
    rows = world.rows("select pdf_storage_path from billing.invoices order by invoice_number")
    return [row["pdf_storage_path"] for row in rows]


def test_originals_are_stored_verbatim_and_privately(
    office: World, settings: Settings, catalogue: Path, originals: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    done = load_invoices(into(settings, store), catalogue, originals=originals).documents
    assert done is not None
    assert (done.stored, done.found, done.failed) == (2, 0, ())
    facility = office.value("select id from billing.facilities")
    for number in ("INV-1", "INV-2"):
        kept = store / str(facility) / f"{number}.pdf"
        assert kept.read_bytes() == PDF + number.encode()
        assert kept.stat().st_mode & 0o077 == 0
    assert store.stat().st_mode & 0o077 == 0
    kept_rows = office.rows("select * from staging.invoice_documents order by invoice_number")
    assert [document["sha256"] for document in kept_rows] == [
        hashlib.sha256(PDF + number).hexdigest() for number in (b"INV-1", b"INV-2")
    ]
    office.conn.execute("select from backfill.run('invoices')")
    assert paths(office) == [f"{facility}/INV-1.pdf", f"{facility}/INV-2.pdf"]


def test_invoices_that_are_there_get_their_path_in_an_audited_run(
    office: World, settings: Settings, catalogue: Path, originals: Path, tmp_path: Path
) -> None:
    load_invoices(settings, catalogue)
    office.conn.execute("select from backfill.run('invoices')")
    assert paths(office) == [None, None]
    done = load_invoices(into(settings, tmp_path / "store"), catalogue, originals=originals).documents
    assert done is not None
    assert None not in paths(office)
    query = "select operation from backfill.change_log where run_id = %s and table_name = 'billing.invoices'"
    changes = office.rows(query, done.run_id)
    assert [change["operation"] for change in changes] == ["UPDATE", "UPDATE"]
    office.conn.execute("select * from backfill.reverse_run(%s)", [done.run_id])
    assert paths(office) == [None, None]


def test_a_dry_run_looks_and_stores_nothing(
    office: World, settings: Settings, catalogue: Path, originals: Path, tmp_path: Path
) -> None:
    (originals / "INV-1.pdf").write_bytes(b"<html>")
    (originals / "INV-2.pdf").unlink()
    with refusal("BF004") as caught:
        load_invoices(into(settings, tmp_path / "store"), catalogue, originals=originals, dry_run=True)
    assert "INV-1: INV-1.pdf is not a PDF" in str(caught.value)
    assert "INV-2: there is no INV-2.pdf" in str(caught.value)
    load_invoices(settings, catalogue)
    again = load_invoices(into(settings, tmp_path / "store"), catalogue, originals=originals, dry_run=True).documents
    assert again is not None
    assert again.missing == ("INV-1: INV-1.pdf is not a PDF", "INV-2: there is no INV-2.pdf")
    assert not (tmp_path / "store").exists()


def test_originals_that_are_missing_are_named_each_time_and_may_be_allowed(
    office: World, settings: Settings, catalogue: Path, originals: Path, tmp_path: Path
) -> None:
    (originals / "INV-1.pdf").write_bytes(b"<html>")
    (originals / "INV-2.pdf").unlink()
    (tmp_path / "runner.toml").write_text(f'systems = ["invoices"]\n[invoices]\ndocuments = "{tmp_path / "store"}"\n')
    config = str(tmp_path / "runner.toml")
    words = ("load", "invoices", str(catalogue), "--documents", str(originals), "--config", config)
    url = settings.conninfo
    assert "2 of 4 source rows cannot be taken" in run(url, *words, code=3).text
    wanting = "2 missing: put them into"
    assert wanting in run(url, *words, "--allow-rejects", "2").text  # what is allowed is no failure
    for more in ((), ("--dry-run",)):
        again = run(url, *words, *more, code=3).text
        assert "catalogue.csv was loaded before" in again
        assert wanting in again
        assert "INV-1: INV-1.pdf is not a PDF INV-2: there is no INV-2.pdf" in again
    (originals / "INV-1.pdf").write_bytes(PDF)
    assert "Originals: 1 stored, 0 found in the store, 0 failed 1 missing" in run(url, *words, code=3).text
    (originals / "INV-2.pdf").write_bytes(PDF)
    assert "missing" not in run(url, *words).text
    assert office.value("select count(*) from staging.invoice_documents") == 2


def test_what_is_no_file_of_the_folder_is_refused_by_name_and_nobody_waits_for_it(
    office: World, settings: Settings, catalogue: Path, originals: Path, tmp_path: Path
) -> None:
    """A link would store what lies elsewhere, a FIFO would never end."""
    secret = tmp_path / "secret.pdf"
    secret.write_bytes(PDF + b"of somebody else")
    (originals / "INV-1.pdf").unlink()
    (originals / "INV-1.pdf").symlink_to(secret)
    (originals / "INV-2.pdf").unlink()
    os.mkfifo(originals / "INV-2.pdf")
    done = load_invoices(into(settings, tmp_path / "store"), catalogue, originals=originals, allow_rejects=2).documents
    assert done is not None
    assert done.missing == (
        "INV-1: INV-1.pdf cannot be read: it is a link, not a file",
        "INV-2: INV-2.pdf cannot be read: it is a FIFO, not a file",
    )
    assert not (tmp_path / "store").exists()


def test_an_original_in_the_store_is_never_overwritten(
    office: World, settings: Settings, catalogue: Path, originals: Path, tmp_path: Path
) -> None:
    other = tmp_path / "store" / str(office.value("select id from billing.facilities")) / "INV-1.pdf"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"%PDF-another")
    done = load_invoices(into(settings, tmp_path / "store"), catalogue, originals=originals).documents
    assert done is not None
    assert (done.stored, len(done.failed)) == (1, 1)
    assert "another document is at" in done.failed[0]
    assert other.read_bytes() == b"%PDF-another"
    assert office.value("select count(*) from staging.invoice_documents") == 1


def test_what_reads_back_otherwise_does_not_count_and_is_not_left_behind(
    office: World, settings: Settings, catalogue: Path, originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file = LocalFileSystem.put_file

    def lossy(self: Any, source: str, target: str, **more: Any) -> None:
        put_file(self, source, target, **more)
        if "INV-1" in target:
            Path(target).write_bytes(PDF)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "put_file", lossy)
        done = load_invoices(into(settings, tmp_path / "store"), catalogue, originals=originals).documents
    assert done is not None
    assert done.stored == 1
    assert "INV-1: read back from" in done.failed[0]
    office.conn.execute("select from backfill.run('invoices')")
    facility = office.value("select id from billing.facilities")
    assert paths(office) == [None, f"{facility}/INV-2.pdf"]
    again = load_invoices(into(settings, tmp_path / "store"), catalogue, originals=originals).documents
    assert again is not None
    assert (again.stored, again.failed) == (1, ())
    assert paths(office) == [f"{facility}/INV-1.pdf", f"{facility}/INV-2.pdf"]


def test_interrupted_it_goes_on(
    office: World, settings: Settings, catalogue: Path, originals: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    folder = store / str(office.value("select id from billing.facilities"))
    folder.mkdir(parents=True)
    (folder / "INV-1.pdf").write_bytes(PDF + b"INV-1")  # stored, and killed before it was written down
    (folder / "INV-2.pdf.part").write_bytes(b"%PD")  # killed in the middle
    done = load_invoices(into(settings, store), catalogue, originals=originals).documents
    assert done is not None
    assert (done.stored, done.found, done.failed) == (1, 1, ())
    assert (folder / "INV-2.pdf").read_bytes() == PDF + b"INV-2"
    again = load_invoices(into(settings, store), catalogue, originals=originals).documents
    assert again is not None
    assert (again.run_id, again.stored, again.found) == (None, 0, 0)


def test_a_store_that_fails_keeps_what_is_proved(
    office: World, settings: Settings, catalogue: Path, originals: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    folder = store / str(office.value("select id from billing.facilities"))
    (folder / "INV-2.pdf.part").mkdir(parents=True)  # cannot be replaced by a file
    with pytest.raises(DocumentStoreError, match="1 of 2 originals are stored and written down"):
        load_invoices(into(settings, store), catalogue, originals=originals)
    assert office.value("select invoice_number from staging.invoice_documents") == "INV-1"
    (folder / "INV-2.pdf.part").rmdir()
    done = load_invoices(into(settings, store), catalogue, originals=originals).documents
    assert done is not None
    assert done.stored == 1


@pytest.fixture
def bucket() -> Iterator[tuple[str, str]]:
    """A bucket of a real S3 interface on loopback: its URL and the endpoint."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        for name, text in (("AWS_ACCESS_KEY_ID", "testing"), ("AWS_SECRET_ACCESS_KEY", "testing"),
                           ("AWS_DEFAULT_REGION", "us-east-1"), ("NO_PROXY", "127.0.0.1")):  # fmt: skip
            patch.setenv(name, text)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            endpoint = f"http://{host}:{port}"
            fsspec.filesystem("s3", endpoint_url=endpoint).makedirs("originals-of-invoices", exist_ok=True)
            yield "s3://originals-of-invoices/past", endpoint
        finally:
            server.stop()


def test_originals_go_to_s3(
    office: World, settings: Settings, catalogue: Path, originals: Path, bucket: tuple[str, str]
) -> None:
    url, endpoint = bucket
    (originals / "INV-2.pdf").write_bytes(PDF * 700)  # 7 MB: in several parts
    target = into(settings, url, endpoint_url=endpoint)
    done = load_invoices(target, catalogue, originals=originals).documents
    assert done is not None
    assert (done.stored, done.found, done.failed) == (2, 0, ())
    office.conn.execute("select from backfill.run('invoices')")
    store: Any = fsspec.filesystem("s3", endpoint_url=endpoint)
    for path, content in zip(paths(office), (PDF + b"INV-1", PDF * 700), strict=True):
        assert store.cat_file(f"originals-of-invoices/past/{path}") == content
    acl = store.call_s3("get_object_acl", Bucket="originals-of-invoices", Key=f"past/{paths(office)[0]}")
    assert {grant["Grantee"]["Type"] for grant in acl["Grants"]} == {"CanonicalUser"}  # the owner alone
    again = load_invoices(target, catalogue, originals=originals).documents
    assert again is not None
    assert (again.stored, again.failed) == (0, ())


def test_a_bucket_that_is_not_there_is_one_clear_error(
    office: World, settings: Settings, catalogue: Path, originals: Path, bucket: tuple[str, str]
) -> None:
    with pytest.raises(DocumentStoreError, match="0 of 2 originals are stored"):
        load_invoices(into(settings, "s3://no-such-bucket/x", endpoint_url=bucket[1]), catalogue, originals=originals)
    assert office.value("select count(*) from staging.invoices") == 2  # the load itself is committed
