"""What the supervisor is told of each process that the platform consists of."""

from pathlib import Path

from hyperion.fleet.replicas import describe_runner
from hyperion.schema.model import ModelOptions
from tests.gateway.runners import config_of


def test_a_runner_may_be_silent_for_longer_than_it_may_compute(tmp_path: Path) -> None:
    for deadline_ms in (50, 600_000):
        spec = describe_runner(config_of(tmp_path, 0, ModelOptions(deadline_ms=deadline_ms)))
        assert spec.silence_s > deadline_ms / 1000 + 1.0
