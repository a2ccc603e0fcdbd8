"""Settings: which source wins, and what a slip of the pen gets to hear."""

from pathlib import Path

import pytest

from hyperion.cli.resolve import find_files, resolve
from hyperion.cli.settings import BY_KEY, SETTINGS, parse_value
from hyperion.schema.errors import InvalidConfig


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_flag_wins_over_the_environment_over_a_file_over_the_default(tmp_path: Path) -> None:
    near = write(tmp_path / "hyperion.toml", "port = 3\ngrpc-port = 3\nadmin_port = 3\n")
    far = write(tmp_path / "far.toml", "port = 4\nqueue-rows = 4\n")
    settings = resolve({"port": 1}, {"HYPERION_PORT": "2", "HYPERION_GRPC_PORT": "2"}, [near, far])
    found = {key: (settings.entries[key].value, settings.entries[key].source) for key in settings.entries}
    assert found["port"] == (1, "--port")
    assert found["grpc_port"] == (2, "HYPERION_GRPC_PORT")
    assert found["admin_port"] == (3, str(near))
    assert found["queue_rows"] == (4, str(far))
    assert found["host"] == ("127.0.0.1", "default")


def test_only_what_somebody_set_counts_as_given() -> None:
    assert resolve({"replicas": 1}, {"HYPERION_THREADS": "2"}, []).given("model") == {"replicas": 1, "threads": 2}


@pytest.mark.parametrize(
    ("key", "given", "shown"),
    [
        ("database_url", "postgresql://me:s3cret@h:5432/d", "postgresql://me:***@h:5432/d"),
        ("database_url", "postgresql://h/d?user=me&password=s3cret&x=1", "postgresql://h/d?user=me&password=***&x=1"),
        ("database_url", "postgresql://me@h/d", "postgresql://me@h/d"),
        ("database_url", "sqlite:////srv/a.db", "sqlite:////srv/a.db"),
        ("redis_url", "redis://:s3cret@h:6379/0", "redis://:***@h:6379/0"),
        ("redis_url", "redis://:s3@c/r3t@h:6379/0", "redis://:***@h:6379/0"),
        ("redis_url", "redis://h:6379/0", "redis://h:6379/0"),
        ("blobs_url", "s3://id:s3cret@b/p?endpoint=https://h", "s3://id:***@b/p?endpoint=https://h"),
        (
            "streams",
            "nats://s3cret@a/S/C?endpoint=e, kafka://me:s3cret@b:9092/T/G?endpoint=e,kafka://c/T/G?endpoint=e",
            "nats://***@a/S/C?endpoint=e, kafka://me:***@b:9092/T/G?endpoint=e,kafka://c/T/G?endpoint=e",
        ),
        ("port", 8080, 8080),
    ],
)
def test_passwords_and_tokens_are_not_shown(key: str, given: object, shown: object) -> None:
    assert resolve({key: given}, {}, []).entries[key].shown == shown


def test_an_unknown_key_of_a_file_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "hyperion.toml", "gateway_worker = 2\n")
    with pytest.raises(InvalidConfig, match=r'unknown key "gateway_worker"; did you mean "gateway_workers"'):
        resolve({}, {}, [path])


def test_a_slip_in_the_environment_is_an_error_and_a_stranger_is_not() -> None:
    with pytest.raises(InvalidConfig, match="did you mean HYPERION_PORT"):
        resolve({}, {"HYPERION_PROT": "1"}, [])
    resolve({}, {"HYPERION_REQUIRE_SERVICES": "1", "HYPERION_": "", "MY_HYPERION_PROT": "1"}, [])


def test_a_file_that_is_no_toml_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"hyperion\.toml: cannot be read"):
        resolve({}, {}, [write(tmp_path / "hyperion.toml", "port 8080")])


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("port", "http", "expected an integer, got 'http'"),
        ("port", 70000, "expected 0 to 65535, got 70000"),
        ("port", True, "expected an integer, got True"),
        ("queue_rows", 0, "expected 1 or more, got 0"),
        ("drain_s", "nan", "expected a number, got 'nan'"),
        ("requests_per_second", "inf", "expected a number, got 'inf'"),
        ("drain_s", "soon", "expected a number"),
        ("grpc", "perhaps", "expected true or false"),
        ("host", 5, "expected text"),
        ("log_format", "xml", "expected one of auto, text, json"),
    ],
)
def test_a_wrong_value_says_what_was_expected_and_where_it_came_from(key: str, given: object, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message) as caught:
        parse_value(BY_KEY[key], given, "somewhere")
    assert str(caught.value).startswith(f"{BY_KEY[key].name} (from somewhere): ")


def test_every_default_is_a_valid_value() -> None:
    for setting in SETTINGS:
        assert parse_value(setting, setting.default, "default") == setting.default


@pytest.mark.parametrize(("given", "value"), [("yes", True), ("0", False), ("On", True), (False, False)])
def test_flags_are_read_as_people_write_them(given: object, value: bool) -> None:
    assert parse_value(BY_KEY["grpc"], given, "x") is value


def test_the_file_here_wins_over_the_users_own(tmp_path: Path) -> None:
    here = write(tmp_path / "here" / "hyperion.toml", "")
    own = write(tmp_path / "config" / "hyperion" / "config.toml", "")
    assert find_files({"XDG_CONFIG_HOME": str(tmp_path / "config")}, here.parent) == [here, own]
    home = write(tmp_path / "home" / ".config" / "hyperion" / "config.toml", "")
    assert find_files({"HOME": str(tmp_path / "home")}, tmp_path) == [home]
