"""Blobs in a bucket of S3, or of anything that speaks its protocol: one object each, `PREFIX/sha256/ab/cdef…`.

Called like every other `Blobs`. An object appears only when its content turned out to be right: a small one is sent
when it is known whole, a large one is a multipart upload that is completed after its hash was checked. Access keys and
the region come from where boto3 looks for them (environment, files, instance), never from here.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from hyperion.schema.errors import MissingExtra, StorageFailed
from hyperion.store.blobs.directory import CHUNK_BYTES, Measured, check_sha256, missing

PART_BYTES = 32 << 20
MAX_PARTS = 10_000  # S3's own limit
_ABSENT = frozenset(("404", "NoSuchKey", "NotFound"))


class S3Blobs:
    """Blobs in `bucket`, under `prefix`. `endpoint` "" is AWS; give the URL of any other service."""

    def __init__(self, bucket: str, prefix: str = "", endpoint: str = "") -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise MissingExtra(
                "blobs in S3 need boto3, which is not installed; install it with: pip install 'hyperion-inference[s3]'"
            ) from error
        # The payload's hash is signed, so the service checks what arrived. The newer checksum headers are left out
        # where S3 does not demand them: services that are only compatible refuse them.
        config = Config(
            s3={"payload_signing_enabled": True, "addressing_style": "path" if endpoint else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "max_attempts": 4},
            connect_timeout=10,
            read_timeout=60,
        )
        with _store_errors(bucket):
            self._client: Any = boto3.client("s3", endpoint_url=endpoint or None, config=config)
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def has(self, sha256: str) -> bool:
        return self._size_of(sha256) is not None

    def put(self, stream: BinaryIO, sha256: str, size_bytes: int) -> None:
        # Read again by the service itself, so the size tells enough of an object that is there.
        if self._size_of(sha256) == size_bytes:
            return
        measured = Measured(stream, sha256, size_bytes)
        with _store_errors(self._bucket):
            if size_bytes <= PART_BYTES:
                self._client.put_object(**self._key(sha256), Body=b"".join(measured.chunks()))
            else:
                self._upload(measured, sha256, max(PART_BYTES, -(-size_bytes // (MAX_PARTS - 1))))

    def open(self, sha256: str) -> BinaryIO:
        with _store_errors(self._bucket):
            try:
                body = self._client.get_object(**self._key(sha256))["Body"]
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    raise missing(sha256) from error
                raise
        return cast(BinaryIO, io.BufferedReader(_Download(body, self._bucket), CHUNK_BYTES))

    def path_or_none(self, sha256: str) -> Path | None:
        check_sha256(sha256)
        return None

    def delete(self, sha256: str) -> bool:
        if not self.has(sha256):
            return False
        with _store_errors(self._bucket):
            self._client.delete_object(**self._key(sha256))
        return True

    def _size_of(self, sha256: str) -> int | None:
        with _store_errors(self._bucket):
            try:
                return int(self._client.head_object(**self._key(sha256))["ContentLength"])
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise

    def _upload(self, measured: Measured, sha256: str, part_bytes: int) -> None:
        where = self._key(sha256)
        upload = {**where, "UploadId": self._client.create_multipart_upload(**where)["UploadId"]}
        try:
            parts = []
            for number, part in enumerate(_join(measured.chunks(), part_bytes), start=1):
                answer = self._client.upload_part(**upload, PartNumber=number, Body=part)
                parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            self._client.abort_multipart_upload(**upload)
            raise

    def _key(self, sha256: str) -> dict[str, str]:
        check_sha256(sha256)
        return {"Bucket": self._bucket, "Key": f"{self._prefix}sha256/{sha256[:2]}/{sha256[2:]}"}


class _Download(io.RawIOBase):
    """The body of an answer as a file; a connection that breaks is StorageFailed."""

    def __init__(self, body: Any, bucket: str) -> None:
        self._body, self._bucket = body, bucket

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _store_errors(self._bucket):
            chunk = self._body.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._body.close()
        super().close()


def _join(chunks: Iterator[bytes], part_bytes: int) -> Iterator[bytes]:
    """The same bytes in parts of one size, the last one smaller."""
    part = bytearray()
    for chunk in chunks:
        part += chunk
        if len(part) >= part_bytes:
            yield bytes(part[:part_bytes])
            del part[:part_bytes]
    if part:
        yield bytes(part)


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _store_errors(bucket: str) -> Iterator[None]:
    """Turns boto3's errors into StorageFailed: what failed, and never a key."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise StorageFailed(f"S3 bucket {bucket!r}: {error.operation_name} was answered with {_code(error)}") from error
    except BotoCoreError as error:
        raise StorageFailed(f"S3 bucket {bucket!r}: {str(error)[:300]}") from error
