"""One replica of the obedient model that all tests of this room share, and FIFOs to hold it."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import Fifo, config_of, served_by, start_runner, stop_runner


@pytest.fixture(scope="session")
def obedient_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("obedient")


@pytest.fixture(scope="session")
def obedient(obedient_dir: Path) -> Iterator[ServedVersion]:
    """A version with one replica, for tests that do it no harm."""
    config = config_of(obedient_dir)
    process = start_runner(config)
    yield served_by([config])
    stop_runner(process)


@pytest.fixture(scope="session")
def new_fifo(obedient_dir: Path) -> Callable[[], Fifo]:
    """Places where the shared replica waits."""
    numbers = itertools.count()
    return lambda: Fifo(obedient_dir, f"fifo{next(numbers)}")
