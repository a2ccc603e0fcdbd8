"""What `hyperion doctor` finds out: about a Redis that gateways are to share, and about extras."""

import tomllib
from pathlib import Path

import pytest

from hyperion.cli.check import Check
from hyperion.cli.checks import OPTIONAL, run_checks
from hyperion.cli.resolve import resolve
from tests.gateway.redis_server import RedisServer
from tests.services import needs_module

needs_module("redis", extra="redis")


def redis_checks(url: str, home: Path) -> list[Check]:
    flags = {"home": str(home), "port": "0", "grpc_port": "0", "admin_port": "0", "redis_url": url}
    return [check for check in run_checks(resolve(flags, {}, ())) if check.name == "redis server"]


@pytest.fixture
def server(tmp_path: Path) -> RedisServer:
    return RedisServer(tmp_path)


def test_a_redis_is_looked_for_where_one_is_asked_for(server: RedisServer, tmp_path: Path) -> None:
    assert redis_checks("", tmp_path) == []
    (check,) = redis_checks(server.url, tmp_path)
    assert (check.verdict, "limits would not be shared" in check.detail) == ("bad", True)
    with server:
        assert redis_checks(server.url, tmp_path) == [Check("redis server", "ok", "answers")]
    (check,) = redis_checks("127.0.0.1:6379", tmp_path)
    assert (check.verdict, check.detail.startswith("--redis-url: expected redis://HOST")) == ("bad", True)


def test_every_extra_has_a_line(tmp_path: Path) -> None:
    given = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    extras = given["project"]["optional-dependencies"].keys() - {"all", "examples"}
    assert set(OPTIONAL.values()) == extras
    flags = {"home": str(tmp_path), "port": "0", "grpc_port": "0", "admin_port": "0"}
    found = [check.name for check in run_checks(resolve(flags, {}, ()))]
    assert [name for name in found if name in OPTIONAL] == list(OPTIONAL)
