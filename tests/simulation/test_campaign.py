"""The short form of `make simulate`: each kind of fault once, at a moment and on a verb that its seed decides."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from runner import embedded
from tests.simulation.campaign import disturb
from tests.simulation.faults import FAULTS
from tests.simulation.ground import Ground
from tests.simulation.ground import ground as ground_


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with ground_(int(os.environ.get("PG", embedded.DEFAULT_VERSION))) as made:
        yield made


@pytest.mark.parametrize("seed", range(1, 1 + len(FAULTS)))
def test_whatever_gets_in_the_way_nothing_is_half_done_and_again_it_is_done(ground: Ground, seed: int) -> None:
    told = disturb(ground, seed)
    assert told.wrong == [], f"{told}\nmake simulate SEEDS=1 FROM={seed}"
