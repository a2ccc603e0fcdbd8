"""The token of the management API: how it is made, and which files are not taken for one."""

import os
import stat
from pathlib import Path

import pytest

from hyperion.api.token import ensure_token, read_token
from hyperion.schema.errors import InvalidConfig


def test_a_token_is_made_once_for_its_owner_alone_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    token = ensure_token(tmp_path)
    assert ensure_token(tmp_path) == read_token(tmp_path / "admin-token") == token
    assert len(token) == 64
    assert stat.S_IMODE((tmp_path / "admin-token").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["admin-token"]


def test_the_file_is_never_there_without_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    make = os.urandom
    monkeypatch.setattr(os, "urandom", lambda size: (seen.append((tmp_path / "admin-token").exists()), make(size))[1])
    ensure_token(tmp_path)
    assert False in seen, "nobody drew the token"
    assert True not in seen


def test_of_two_that_make_it_at_once_both_have_the_first_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = "f" * 64

    def be_slow(size: int) -> bytes:
        (tmp_path / "admin-token").touch(0o600)
        (tmp_path / "admin-token").write_text(first)
        return bytes(size)

    monkeypatch.setattr(os, "urandom", be_slow)
    assert ensure_token(tmp_path) == first


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("f" * 64, 0o640, "others can read this token"),
        ("", 0o600, "expected a token of 64 characters"),
        ("\xff", 0o600, "cannot be read"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused_with_what_to_do(
    tmp_path: Path, text: str, mode: int, message: str
) -> None:
    path = tmp_path / "admin-token"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(InvalidConfig, match=message):
        ensure_token(tmp_path)
