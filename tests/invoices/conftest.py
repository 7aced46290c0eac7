"""A company on the test's own database."""

from __future__ import annotations

import psycopg
import pytest

from tests.invoices.world import World


@pytest.fixture
def world(conn: psycopg.Connection) -> World:
    """A company whose next invoice is number 1 and that takes no interest."""
    return World.create(conn)
