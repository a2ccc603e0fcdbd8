"""The home, its lock, its sockets, and the listening ports."""

import os
import stat
from pathlib import Path

import pytest

from hyperion.fleet.home import claim_home, find_run_dir, listen_tcp, listen_unix
from hyperion.fleet.replicas import name_replica, name_socket
from hyperion.schema.errors import InvalidConfig


def test_a_claimed_home_and_its_sockets_are_private(tmp_path: Path) -> None:
    home = claim_home(tmp_path / "deep" / "home")
    for path in (home.path, home.run_dir):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with listen_unix(home.run_dir / "x.sock"):
        assert stat.S_IMODE((home.run_dir / "x.sock").stat().st_mode) == 0o600
    os.close(home.lock_fd)


def test_a_home_in_use_is_refused_and_free_again_when_its_owner_is_gone(tmp_path: Path) -> None:
    home = claim_home(tmp_path)
    with pytest.raises(InvalidConfig, match=f"in use by process {os.getpid()}"):
        claim_home(tmp_path)
    os.close(home.lock_fd)
    os.close(claim_home(tmp_path).lock_fd)


def test_sockets_of_a_dead_predecessor_are_removed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "r-1.sock").touch()
    home = claim_home(tmp_path)
    assert list(home.run_dir.iterdir()) == []
    os.close(home.lock_fd)


def test_a_home_that_cannot_be_made_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfig, match="--home"):
        claim_home(tmp_path / "file" / "home")


def test_a_run_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    run_dir = find_run_dir(tmp_path)  # somewhere else where the temporary directory's path is long
    run_dir.symlink_to(tmp_path)
    try:
        with pytest.raises(InvalidConfig, match="not a directory of this user"):
            claim_home(tmp_path)
    finally:
        run_dir.unlink()


def test_sockets_fit_into_their_address_however_deep_the_home_is(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "home"
    run_dir = find_run_dir(deep)
    name = name_replica("m" * 128, "1" * 40, 12345, 99)
    assert len(os.fsencode(name_socket(run_dir, name))) + len(".1234567") <= 107
    assert find_run_dir(deep) == run_dir != find_run_dir(tmp_path / ("e" * 100))
    home = claim_home(deep)
    listen_unix(name_socket(home.run_dir, name)).close()
    os.close(home.lock_fd)
    for leftover in home.run_dir.iterdir():
        leftover.unlink()
    home.run_dir.rmdir()


def test_a_port_in_use_is_an_error_that_names_the_option() -> None:
    with listen_tcp("127.0.0.1", 0, "--grpc-port") as held:
        port = held.getsockname()[1]
        with pytest.raises(InvalidConfig, match=f"port {port} on 127.0.0.1 is in use: choose another with --port"):
            listen_tcp("127.0.0.1", port, "--port")


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_an_error_that_names_the_option(host: str) -> None:
    with pytest.raises(InvalidConfig, match="--port"):
        listen_tcp(host, 0, "--port")
