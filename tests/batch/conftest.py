"""Models and a bench for every test of batches."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.batch.bench import Bench
from tests.batch.tables import TinyModels


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return TinyModels(tmp_path_factory.mktemp("models"))


@pytest.fixture
def bench(tmp_path: Path, models: TinyModels) -> Iterator[Bench]:
    (tmp_path / "home").mkdir()
    yield Bench(tmp_path, models)
    assert not list((tmp_path / "run").iterdir()), "a runner left something behind"
