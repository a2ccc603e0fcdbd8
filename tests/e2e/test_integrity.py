"""Artifacts that are not what was pushed, or not by whom: each is refused in words that say what to do, and whatever
served before serves on."""

import os
import pickle
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression

from tests.e2e.admin_client import Api, Refused, wait_until
from tests.e2e.releases import Platform
from tests.e2e.tiny_models import write_tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MODEL = "tiny"
AT_ONCE = {"strategy": "all-at-once", "standby_s": 60}


class Vault:
    """A platform that knows one key, and an API to it."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.platform = Platform(directory, options)
        self.served = self.platform.served
        self.models = directory / "models"
        self.api: Api

    def artifacts(self, version: str) -> Path:
        """Where a version is laid out for its runners."""
        (folder,) = [one for one in (self.served.home / "artifacts" / MODEL).glob(f"{version}-*") if one.is_dir()]
        return folder

    def ask(self, endpoint: str) -> tuple[int, str]:
        """One request: its status and the version that answered."""
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [7.0, 1.0, 2.0, 3.0]}
        answer = self.served.post(f"/v2/models/{endpoint}/infer", {"inputs": [tensor]})
        return answer.status, answer.headers.get("x-hyperion-model-version", "")

    def refuse(self, endpoint: str, model: str) -> str:
        """Deploy what must be refused; the reason. Version 1 answers on."""
        version = model.partition("@")[2]
        self.api.deploy(endpoint, model)
        status = self.api.wait_end(endpoint, version)
        assert status["state"] == "halted", status
        assert self.ask(endpoint) == (200, "1")
        halted = [entry for entry in self.api.entries(endpoint) if entry["kind"] == "rollout.halted"][-1]
        assert halted["detail"]["reason"] == status["reason"]
        return str(status["reason"])


def make_key(directory: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key as PEM."""
    private, public = directory / f"{name}.pem", directory / f"{name}.pub"
    make = ("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private))
    subprocess.run(make, check=True, capture_output=True)
    show = ("openssl", "ec", "-in", str(private), "-pubout", "-out", str(public))
    subprocess.run(show, check=True, capture_output=True)
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of somebody trusted, and of a stranger."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; it makes the keys of these tests")
    directory = tmp_path_factory.mktemp("keys")
    return {name: make_key(directory, name) for name in ("trusted", "stranger")}


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory, keys: Any) -> Iterator[Vault]:
    vault = Vault(tmp_path_factory.mktemp("vault"), "--trusted-keys", str(keys["trusted"][1]))
    with vault.served as served, Api(served) as api:
        vault.api = api
        api.push(MODEL, "1", write_tiny(vault.models, "v1"))
        api.apply("guarded", f"{MODEL}@1", rollout=AT_ONCE)
        api.wait_end("guarded", "1")
        yield vault


def own_version(vault: Vault, version: str) -> Path:
    """Push a version that no other shares a file with, lay it out, and give the place back as somebody with write
    access would see it."""
    folder = write_tiny(vault.models, "equal")
    copy = vault.models / f"own-{version}"
    shutil.copytree(folder, copy)
    (copy / "weights.bin").write_bytes(os.urandom(64))
    vault.api.push(MODEL, version, copy)
    # Laid out by an endpoint of its own, which is gone before anything is touched.
    vault.api.apply(f"layer-{version}", f"{MODEL}@{version}", rollout=AT_ONCE)
    vault.api.wait_end(f"layer-{version}", version)
    vault.api.ask("DELETE", f"endpoints/layer-{version}")
    return vault.artifacts(version)


def unlock(path: Path) -> None:
    """As root of the machine, or its owner, could."""
    path.chmod(stat.S_IRWXU if path.is_dir() else stat.S_IRUSR | stat.S_IWUSR)


def flip(path: Path) -> None:
    """One bit of one byte."""
    unlock(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as file:  # in place: a hard link to it changes with it
        file.write(data)


def test_a_flipped_byte_in_the_artifact_and_so_in_the_blob_halts_the_rollout(vault: Vault) -> None:
    flip(own_version(vault, "flipped") / "weights.bin")
    reason = vault.refuse("guarded", f"{MODEL}@flipped")
    assert "'weights.bin' has the SHA-256" in reason
    assert "push it again from a good copy" in reason
    verified = vault.platform.run("model", "verify", f"{MODEL}@flipped", check=False)
    assert verified.returncode == 1, verified
    assert "weights.bin" in verified.stdout + verified.stderr
    # What the message says helps.
    push = ("model", "push", MODEL, str(vault.models / "own-flipped"), "--version", "flipped")
    assert "sent again" in vault.platform.run(*push, "--git-commit", "c0ffeeflipped").stdout
    vault.api.deploy("guarded", f"{MODEL}@flipped")
    assert vault.api.wait("guarded", lambda now: now["state"] == "promoted")["to"] == "flipped"
    vault.api.command("guarded", "undo")


def test_a_flipped_byte_in_a_blob_is_found_before_anything_was_laid_out(vault: Vault) -> None:
    folder = vault.models / "own-blob"
    shutil.copytree(write_tiny(vault.models, "equal"), folder)
    (folder / "weights.bin").write_bytes(b"0123456789" * 7)
    vault.api.push(MODEL, "blob", folder)
    manifest = vault.api.ask("GET", f"registry/models/{MODEL}/versions/blob")["manifest"]
    sha256 = next(file["sha256"] for file in manifest["files"] if file["path"] == "weights.bin")
    (blob,) = (one for one in (vault.served.home / "blobs").rglob("*") if sha256.endswith(one.name) and one.is_file())
    flip(blob)
    assert "weights.bin" in vault.refuse("guarded", f"{MODEL}@blob")


def test_a_file_that_the_manifest_does_not_list_is_refused(vault: Vault) -> None:
    folder = own_version(vault, "added")
    unlock(folder)
    (folder / "sitecustomize.py").write_text("raise SystemExit\n")
    reason = vault.refuse("guarded", f"{MODEL}@added")
    assert "sitecustomize.py" in reason
    assert "remove it" in reason


def test_a_symbolic_link_out_is_refused(vault: Vault) -> None:
    folder = own_version(vault, "linked")
    unlock(folder)
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to("/etc/hostname")
    reason = vault.refuse("guarded", f"{MODEL}@linked")
    assert "'weights.bin' is a symbolic link" in reason
    assert "remove it" in reason


def test_a_signature_by_a_stranger_is_refused_and_one_by_a_trusted_key_serves(vault: Vault, keys: Any) -> None:
    push = ("model", "push", MODEL, str(write_tiny(vault.models, "equal")), "--version", "signed", "--sign-key")
    refused = vault.platform.run(*push, str(keys["stranger"][0]), check=False)
    assert refused.returncode in (1, 3), refused
    assert "not by a trusted key" in refused.stderr
    assert "--trusted-keys" in refused.stderr
    vault.platform.run(*push, str(keys["trusted"][0]))
    vault.api.apply("signed", f"{MODEL}@signed", rollout=AT_ONCE)
    assert vault.api.wait_end("signed", "signed")["state"] == "promoted"
    assert vault.ask("signed") == (200, "signed")


def test_a_pickle_is_refused_until_somebody_trusted_has_signed_it(vault: Vault, keys: Any) -> None:
    folder = vault.models / "pickled"
    folder.mkdir()
    fitted = LogisticRegression().fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])
    (folder / "model.pkl").write_bytes(pickle.dumps(fitted))
    vault.api.push(MODEL, "pickled", folder / "model.pkl")
    reason = vault.refuse("guarded", f"{MODEL}@pickled")
    assert "--sign-key" in reason
    assert "hyperion model convert" in reason
    vault.api.push(MODEL, "trusted-pickle", folder / "model.pkl", sign_key=str(keys["trusted"][0]))
    vault.api.apply("pickled", f"{MODEL}@trusted-pickle", rollout=AT_ONCE)
    assert vault.api.wait_end("pickled", "trusted-pickle")["state"] == "promoted"


def test_where_signatures_come_to_be_required_what_was_there_before_is_held_to_them(tmp_path: Path, keys: Any) -> None:
    before = Vault(tmp_path)
    folder = write_tiny(before.models, "v1")
    with before.served as served, Api(served) as api:
        api.push(MODEL, "1", folder, sign_key=str(keys["trusted"][0]))
        api.push(MODEL, "2", folder)
        api.push(MODEL, "3", folder, sign_key=str(keys["stranger"][0]))
        api.apply("strict", f"{MODEL}@1", rollout=AT_ONCE)
        assert api.wait_end("strict", "1")["state"] == "promoted"
    strict = Vault(tmp_path, "--trusted-keys", str(keys["trusted"][1]), "--require-signature")
    with strict.served as served, Api(served) as api:
        strict.api = api
        wait_until(lambda: strict.ask("strict") == (200, "1"))
        unsigned = strict.refuse("strict", f"{MODEL}@2")
        assert "is not signed" in unsigned
        assert "--sign-key" in unsigned
        strange = strict.refuse("strict", f"{MODEL}@3")
        assert "not by a trusted key" in strange
        assert "--trusted-keys" in strange
        with pytest.raises(Refused, match="is not signed"):
            api.push(MODEL, "4", folder)
