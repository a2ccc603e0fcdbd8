"""Where blobs are kept, by one text: nothing, a directory, an OCI layout or a bucket. Called by whoever wires rooms."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from hyperion.schema.errors import InvalidConfig
from hyperion.store.blobs.directory import Blobs, LocalBlobs


def open_blobs(url: str, home: Path) -> Blobs:
    """The blobs that `url` names: "" for `HOME/blobs`, a directory (`/PATH`, `./PATH` or `file:PATH`), `oci:PATH`,
    `s3://BUCKET/PREFIX`, with `?endpoint=URL` for another service than AWS. Raises InvalidConfig, MissingExtra or
    StorageFailed."""
    if not url:
        return LocalBlobs(home / "blobs")
    if url.startswith(("/", "./", "../")):
        return LocalBlobs(Path(url))
    scheme, _, rest = url.partition(":")
    if scheme == "file" and rest:
        return LocalBlobs(Path(rest.removeprefix("//")))
    if scheme == "oci" and rest:
        from hyperion.store.blobs.oci import OciBlobs

        return OciBlobs(Path(rest.removeprefix("//")))
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    if scheme == "s3" and parts.netloc and query.keys() <= {"endpoint"}:
        from hyperion.store.blobs.s3 import S3Blobs

        return S3Blobs(parts.netloc, parts.path, query.get("endpoint", [""])[0])
    raise InvalidConfig(
        "blobs: expected a directory (/PATH), oci:PATH or s3://BUCKET/PREFIX[?endpoint=URL], got "
        f"{url.partition('?')[0][:120]!r}"
    )
