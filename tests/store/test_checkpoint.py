"""Keys and checkpoints: C2SP's formats to the letter, and nothing else accepted."""

import base64
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.errors import InvalidConfig
from hyperion.store.checkpoint import (
    BadCheckpoint,
    Signer,
    Verifier,
    commitment_key,
    ensure_signer,
    note_of,
    read_signer,
)

# The example of golang.org/x/mod/sumdb/note, where the format comes from.
GO_PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
SIGNER = Signer("hyperion/ledger/ab", b"\7" * 32)
ROOT = bytes(range(32))
NOTE = note_of(SIGNER, 12, ROOT, SIGNER.sign(12, ROOT))


def test_the_keys_are_those_of_go(tmp_path: Path) -> None:
    path = tmp_path / "ledger.key"
    path.write_text(GO_PRIVATE + "\n")
    path.chmod(0o600)
    assert read_signer(path).vkey == Verifier(GO_PUBLIC).vkey == GO_PUBLIC


def test_a_checkpoint_is_three_lines_and_a_signature_line() -> None:
    lines = NOTE.split("\n")
    assert lines[:4] == ["hyperion/ledger/ab", "12", base64.b64encode(ROOT).decode(), ""]
    name, signature = lines[4].removeprefix("— ").split(" ")
    assert name == "hyperion/ledger/ab"
    assert base64.b64decode(signature)[:4] == SIGNER.id
    assert lines[5:] == [""]
    assert Verifier(SIGNER.vkey).open(NOTE) == (12, ROOT)


def test_signatures_of_others_beside_ours_are_allowed() -> None:
    assert Verifier(SIGNER.vkey).open(NOTE + "— witness.example AAAAAAAA\n") == (12, ROOT)


@given(st.integers(0, len(NOTE) - 1), st.characters(codec="ascii"))
def test_a_checkpoint_with_another_character_is_refused_or_says_the_same(at: int, character: str) -> None:
    changed = NOTE[:at] + character + NOTE[at + 1 :]
    try:
        assert SIGNER.open(changed) == (12, ROOT)
    except BadCheckpoint:
        return
    assert changed == NOTE or at == len(NOTE) - 1 or changed.startswith(NOTE[: NOTE.index("—")])


@pytest.mark.parametrize(
    "note",
    ["", "\n\n", NOTE.replace("12", "012"), NOTE.replace("12", "-1"), NOTE.replace("12", "1²"), NOTE.split("—")[0]]
    + [note_of(other, 12, ROOT, other.sign(12, ROOT)) for other in (Signer("hyperion/ledger/ab", b"\1" * 32),)],
)
def test_what_is_not_signed_by_the_key_is_refused(note: str) -> None:
    with pytest.raises(BadCheckpoint):
        SIGNER.open(note)


@pytest.mark.parametrize("vkey", ["", "a+b", "a+00000000+AAAA", GO_PUBLIC.replace("c74f", "c74e"), "x" + GO_PUBLIC])
def test_a_key_with_a_mistake_in_it_is_refused(vkey: str) -> None:
    with pytest.raises(BadCheckpoint):
        Verifier(vkey)


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "home" / "ledger.key"
    made = ensure_signer(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_signer(path).vkey == made.vkey
    assert os.listdir(path.parent) == ["ledger.key"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"PRIVATE+KEY+a+00000000+AAAA", GO_PRIVATE.replace("c7", "c8").encode()]
)
def test_a_damaged_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InvalidConfig, match=r"ledger\.key"):
        ensure_signer(path)
    assert path.read_bytes() == content


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.key"
    path.write_text(GO_PRIVATE)
    path.chmod(0o644)
    with pytest.raises(InvalidConfig, match="chmod it to 0600"):
        ensure_signer(path)


def test_the_key_for_commitments_is_made_once(tmp_path: Path) -> None:
    key = commitment_key(tmp_path)
    assert len(key) == 32
    assert commitment_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "commitment.key").stat().st_mode) == 0o600
    (tmp_path / "commitment.key").write_text("00")
    with pytest.raises(InvalidConfig, match="32 bytes"):
        commitment_key(tmp_path)
