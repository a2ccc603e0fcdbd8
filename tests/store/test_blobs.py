"""Every store of blobs keeps what was put, whole and under its own hash, and nothing else: one suite over all three."""

import hashlib
import io
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperion.schema.errors import InvalidConfig, ModelRefused, StorageFailed
from hyperion.store.blobs import s3 as blobs_s3
from hyperion.store.blobs.directory import Blobs, LocalBlobs
from hyperion.store.blobs.oci import OciBlobs
from hyperion.store.blobs.opening import open_blobs
from hyperion.store.versions.materialise import materialise
from hyperion.store.versions.push import Details, prepare_push, put_files
from tests.services import needs_module
from tests.store.layout import PYTHON_MODEL, lay_out

BUCKET = "models"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(blobs: Blobs, content: bytes) -> str:
    blobs.put(io.BytesIO(content), digest(content), len(content))
    return digest(content)


def read(blobs: Blobs, sha256: str) -> bytes:
    with blobs.open(sha256) as stream:
        return stream.read()


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """moto's server on a socket of its own, with a bucket."""
    server_module = needs_module("moto.server", extra="s3")
    boto3 = needs_module("boto3", extra="s3")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(key, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("NO_PROXY", "127.0.0.1")
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint
    server.stop()


@pytest.fixture(params=["local", "oci", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    match request.param:
        case "local":
            return open_blobs("", tmp_path)
        case "oci":
            return open_blobs(f"oci:{tmp_path}/layout", tmp_path)
        case _:
            endpoint = request.getfixturevalue("s3_endpoint")
            return open_blobs(f"s3://{BUCKET}/{tmp_path.name}?endpoint={endpoint}", tmp_path)


def test_what_was_put_can_be_read_until_it_is_deleted(blobs: Blobs) -> None:
    content = os.urandom(100_000)
    sha256 = digest(content)
    assert not blobs.has(sha256)
    assert put(blobs, content) == sha256
    assert blobs.has(sha256)
    assert read(blobs, sha256) == content
    path = blobs.path_or_none(sha256)
    assert path is None or path.read_bytes() == content
    put(blobs, content)
    assert blobs.delete(sha256)
    assert not blobs.delete(sha256)
    assert not blobs.has(sha256)
    assert blobs.path_or_none(sha256) is None
    with pytest.raises(ModelRefused, match="push the version that it belongs to again"):
        blobs.open(sha256)


def test_nothing_at_all_is_a_blob_too(blobs: Blobs) -> None:
    assert read(blobs, put(blobs, b"")) == b""


@pytest.mark.parametrize("sent", [b"other co", b"conten", b"content and more", b""])
def test_content_that_is_not_what_was_announced_is_refused_and_not_kept(blobs: Blobs, sent: bytes) -> None:
    sha256 = digest(b"contents")
    with pytest.raises(ModelRefused, match="push it again"):
        blobs.put(io.BytesIO(sent), sha256, len(b"contents"))
    assert not blobs.has(sha256)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n"])
def test_only_a_hash_is_a_name(blobs: Blobs, name: str) -> None:
    for call in (blobs.has, blobs.open, blobs.path_or_none, blobs.delete):
        with pytest.raises(ModelRefused, match="expected a SHA-256"):
            call(name)
    with pytest.raises(ModelRefused, match="expected a SHA-256"):
        blobs.put(io.BytesIO(b""), name, 0)


def test_many_writers_of_one_blob_agree(blobs: Blobs) -> None:
    content = os.urandom(200_000)
    threads = [threading.Thread(target=put, args=(blobs, content)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(blobs, digest(content)) == content


def test_a_version_is_laid_out_from_any_store(blobs: Blobs, tmp_path: Path) -> None:
    source = lay_out(tmp_path / "source", {"model.py": PYTHON_MODEL, "w.bin": os.urandom(1000)})
    pushed = prepare_push("m", "1", source, Details(git_commit=""))
    assert put_files(blobs, pushed.sources) == sum(file.size_bytes for file in pushed.manifest.files)
    found = materialise(pushed.manifest, blobs, tmp_path / "artifacts", name="m")
    assert {name: (Path(found.root) / name).read_bytes() for name in os.listdir(found.root)} == {
        name: (source / name).read_bytes() for name in os.listdir(source)
    }


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["put", "delete", "has", "read"]), st.sampled_from([b"", b"a", b"bc"]))))
def test_a_store_behaves_like_a_dictionary(tmp_path: Path, steps: list[tuple[str, bytes]]) -> None:
    local, kept = LocalBlobs(tmp_path / os.urandom(8).hex()), set()
    for verb, content in steps:
        if verb == "put":
            kept.add(put(local, content))
        elif verb == "delete":
            assert local.delete(digest(content)) == (digest(content) in kept)
            kept.discard(digest(content))
        else:
            assert local.has(digest(content)) == (digest(content) in kept)


def test_a_local_blob_is_read_only_and_one_that_was_damaged_is_mended_by_putting_it_again(tmp_path: Path) -> None:
    local = LocalBlobs(tmp_path)
    sha256 = put(local, b"content")
    path = local.path_or_none(sha256)
    assert path == tmp_path / "sha256" / sha256[:2] / sha256[2:]
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    os.chmod(path, 0o644)
    path.write_bytes(b"c0ntent")
    put(local, b"content")
    assert read(local, sha256) == b"content"
    assert os.listdir(tmp_path / "unfinished") == []


def test_a_disk_that_fails_is_not_the_caller_s_fault(tmp_path: Path) -> None:
    (tmp_path / "sha256").write_text("in the way")
    with pytest.raises(StorageFailed, match="cannot write it: not a directory"):
        put(LocalBlobs(tmp_path), b"content")


def test_a_large_object_of_a_bucket_is_sent_in_parts_and_dropped_where_it_is_wrong(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3 = needs_module("boto3", extra="s3")
    monkeypatch.setattr(blobs_s3, "PART_BYTES", 5 << 20)
    bucket = open_blobs(f"s3://{BUCKET}/large?endpoint={s3_endpoint}", tmp_path)
    content = os.urandom((11 << 20) + 1)
    assert digest(read(bucket, put(bucket, content))) == digest(content)
    wrong = digest(b"x")
    with pytest.raises(ModelRefused, match="the content has the SHA-256"):
        bucket.put(io.BytesIO(content), wrong, len(content))
    assert not bucket.has(wrong)
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    assert not client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_a_bucket_that_is_not_there_or_answers_nothing_says_so(s3_endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="S3 bucket 'absent': PutObject was answered with NoSuchBucket"):
        put(open_blobs(f"s3://absent?endpoint={s3_endpoint}", tmp_path), b"x")


def test_an_oci_layout_names_each_version_and_its_files(tmp_path: Path) -> None:
    layout = OciBlobs(tmp_path / "layout")
    source = lay_out(tmp_path / "source", {"model.py": PYTHON_MODEL, "w.bin": b"123"})
    pushed = prepare_push("m", "1", source, Details(git_commit=""))
    with pytest.raises(ModelRefused, match="its blob is not in this layout"):
        layout.add_version(pushed.manifest)
    put_files(layout, pushed.sources)
    first, second = (layout.add_version(pushed.manifest) for _ in range(2))
    assert first == second
    assert json.loads((tmp_path / "layout/oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    assert (entry["digest"], entry["annotations"]) == (first, {"org.opencontainers.image.ref.name": "m@1"})
    content = json.loads(read(OciBlobs(tmp_path / "layout"), first.removeprefix("sha256:")))
    titles = [layer["annotations"]["org.opencontainers.image.title"] for layer in content["layers"]]
    assert titles == ["model.py", "w.bin"]
    assert json.loads(read(layout, content["config"]["digest"].removeprefix("sha256:")))["model"] == "m"


def test_another_layout_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path / "layout", {"oci-layout": '{"imageLayoutVersion": "2.0.0"}'})
    with pytest.raises(ModelRefused, match=r"expected imageLayoutVersion 1.0.0"):
        OciBlobs(tmp_path / "layout")


@pytest.mark.parametrize("url", ["ftp://x", "s3:", "s3://b?region=x", "oci:", "file:", "blobs"])
def test_an_unknown_place_is_refused_with_those_that_are_known(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidConfig, match=r"blobs: expected a directory \(/PATH\), oci:PATH or s3://"):
        open_blobs(url, tmp_path)
