"""What settings become: the configuration of each process, and refusals before anything is started."""

from pathlib import Path

import pytest

from hyperion.cli.resolve import Settings, resolve
from hyperion.cli.tree import check_settings, plan_control, plan_gateways
from hyperion.schema.errors import InvalidConfig, MissingExtra


def credential_dirs(settings: Settings, home: Path) -> list[tuple[str, ...]]:
    """As control and the gateways know them."""
    control = plan_control(settings, home, home / "run", (), None, 8082, "http://127.0.0.1:8080", "json")
    gateways = plan_gateways(settings, home, home / "run", 8080, 8081, "json")
    return [control.credential_dirs, *(gateway.credential_dirs for gateway in gateways)]


def test_credentials_lie_in_the_home_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    home, one, two = tmp_path / "home", tmp_path / "one", tmp_path / "two"
    assert credential_dirs(resolve({}, {}, ()), home) == [(str(home / "credentials"),)] * 2
    one.mkdir()
    two.mkdir()
    settings = resolve({"home": str(home)}, {"HYPERION_CREDENTIAL_DIRS": f"{one}, {two}"}, ())
    check_settings(settings, ())
    assert credential_dirs(settings, home) == [(str(one), str(two))] * 2


def test_a_directory_for_credentials_that_holds_the_home_is_refused(tmp_path: Path) -> None:
    """Or whoever may deploy could send the keys of the platform to a server of their choice."""
    home = tmp_path / "home"
    (home / "credentials").mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    for path in (home, tmp_path, "/", tmp_path / "link"):
        with pytest.raises(InvalidConfig, match=r"^--credential-dirs: .* holds the home"):
            check_settings(resolve({"home": str(home), "credential_dirs": str(path)}, {}, ()), ())
    with pytest.raises(InvalidConfig, match=r"^--credential-dirs: no such directory"):
        check_settings(resolve({"home": str(home), "credential_dirs": str(tmp_path / "none")}, {}, ()), ())
    check_settings(resolve({"home": str(home), "credential_dirs": str(home / "credentials")}, {}, ()), ())


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:6379", "http://h:1/0", "redis://", "redis://h:port", "redis://h:70000", "redis://h/zero", "unix://"],
)
def test_a_redis_url_that_no_gateway_could_use_is_refused_before_anything_starts(url: str) -> None:
    with pytest.raises(InvalidConfig, match=r"^--redis-url: expected redis://HOST:PORT/DB"):
        check_settings(resolve({"redis_url": url}, {}, ()), ())


def test_a_redis_url_without_redis_py_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or every gateway would end as soon as it began, behind a banner that says it serves."""
    settings = resolve({"redis_url": "redis://127.0.0.1:6379/0"}, {}, ())
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    check_settings(settings, ())
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'hyperion-inference\[redis\]'"):
        check_settings(settings, ())


def test_a_rate_too_small_to_be_kept_is_refused_before_anything_starts() -> None:
    with pytest.raises(InvalidConfig, match=r"^--requests-per-second: expected 0 \(none\), or 0.000001 or more"):
        check_settings(resolve({"requests_per_second": 1e-300}, {}, ()), ())
    check_settings(resolve({"requests_per_second": 1e-6}, {}, ()), ())
