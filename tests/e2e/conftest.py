"""Real servers for these tests: `serve(PATH…)` starts one for a test, `clients` shares one between the client tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.served import Served

MODELS = Path(__file__).parent / "models"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole platforms take seconds to start, and many of them on a machine that does other things, too."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """`serve(PATH…, options=(…), env={…})` gives a ready server; in the end SIGTERM must leave nothing of it."""
    with ExitStack() as servers:

        def start(*paths: Path | str, options: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Served:
            home = tmp_path / f"home{len(list(tmp_path.glob('home*')))}"
            return servers.enter_context(Served(home, *paths, options=options, env=env))

        yield start


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server with every model of `tests/e2e/models`, for tests that only ask."""
    with Served(tmp_path_factory.mktemp("clients") / "home", MODELS) as served:
        yield served
