"""What `serve` prints: the curl line must work as pasted, whatever the model takes."""

import json
import shlex
from pathlib import Path

import pytest

from hyperion.cli.banner import Addresses, Callers, find_request_file, write_banner, write_curl
from hyperion.cli.sample import make_request
from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.schema.snapshot import ModelState, ServedModel, ServedVersion, Snapshot


def serve_model(*inputs: TensorSpec, name: str = "m") -> ServedModel:
    signature = Signature(inputs, ())
    return ServedModel(
        name, "1", (ServedVersion("1", "sha256:0", 1, "onnxruntime_onnx", signature, ModelOptions(), ()),)
    )


@pytest.fixture
def addresses(tmp_path: Path) -> Addresses:
    return Addresses("http://127.0.0.1:8080", "127.0.0.1:8081", "http://127.0.0.1:8082/", tmp_path)


def read_data(curl: str) -> dict[str, object]:
    """The request that a curl line would send."""
    words = shlex.split(curl)
    data = words[words.index("-d") + 1]
    body: dict[str, object] = json.loads(Path(data[1:]).read_text() if data.startswith("@") else data)
    return body


@pytest.mark.parametrize("datatype", ["BOOL", "INT64", "UINT8", "FP16", "FP32", "BYTES"])
def test_the_request_fits_the_signature(datatype: str) -> None:
    (tensor,) = make_request(Signature((TensorSpec("x", datatype, (-1, 3)),), ()))["inputs"]
    assert (tensor["shape"], len(tensor["data"]), tensor["datatype"]) == ([1, 3], 3, datatype)
    assert all(isinstance(value, {"B": (bool, str), "F": float}.get(datatype[0], int)) for value in tensor["data"])


def test_a_short_request_is_in_the_line_itself(addresses: Addresses) -> None:
    curl = write_curl(serve_model(TensorSpec("it's", "FP32", (-1, 4))), addresses)
    assert read_data(curl)["inputs"][0]["name"] == "it's"  # type: ignore[index]


def test_a_long_request_goes_through_a_file(addresses: Addresses) -> None:
    curl = write_curl(serve_model(TensorSpec("x", "FP32", (-1, 784))), addresses)
    assert len(curl) < 300
    assert len(read_data(curl)["inputs"][0]["data"]) == 784  # type: ignore[index]


def test_a_request_file_beside_the_model_is_used(tmp_path: Path, addresses: Addresses) -> None:
    (tmp_path / "request.json").write_text('{"inputs": []}')
    (tmp_path / "m.onnx").touch()
    for path in (tmp_path, tmp_path / "m.onnx"):
        assert find_request_file((str(path),)) == tmp_path / "request.json"
    beside = Addresses(addresses.url, "", addresses.admin_url, tmp_path, (str(tmp_path),))
    assert read_data(write_curl(serve_model(), beside)) == {"inputs": []}
    assert find_request_file(()) is None


def test_the_banner_names_what_is_served_what_is_not_and_where(addresses: Addresses) -> None:
    snapshot = Snapshot(1, (serve_model(name="good"),), (ModelState("bad", "1", "UNAVAILABLE", "no such file"),))
    text = write_banner(snapshot, addresses, colour=False)
    for part in ("1 model", "good", "bad: UNAVAILABLE: no such file", addresses.grpc, addresses.admin_url, "Ctrl-C"):
        assert part in text
    assert "\x1b" not in text
    assert "\x1b[1m" in write_banner(snapshot, addresses, colour=True)


def test_many_models_do_not_fill_the_screen(addresses: Addresses) -> None:
    many = Snapshot(1, tuple(serve_model(name=f"m{number}") for number in range(100)))
    assert "... and 88 more" in write_banner(many, addresses, colour=False)


def test_where_callers_need_keys_the_lines_to_paste_make_one(addresses: Addresses) -> None:
    closed = Addresses(addresses.url, "", "http://127.0.0.1:9999/", addresses.home, callers="known")
    snapshot = Snapshot(1, (serve_model(name="m"),))
    lines = write_banner(snapshot, closed, colour=False).splitlines()
    at = lines.index("Try it")
    assert shlex.split(lines[at + 1].removeprefix("  KEY=$(").removesuffix(")")) == [
        *("hyperion", "key", "create", "--tenant", "me"),
        *("--url", "http://127.0.0.1:9999", "--home", str(addresses.home)),
    ]
    assert "authorization: Bearer $KEY" in shlex.split(lines[at + 2])
    assert any("--open" in line for line in lines if line.startswith("  Callers"))


@pytest.mark.parametrize(("callers", "said"), [("local", ""), ("any", "--require-auth"), ("certified", "certificate")])
def test_the_banner_says_whom_it_answers(addresses: Addresses, callers: Callers, said: str) -> None:
    at = Addresses("https://127.0.0.1:8080", "", addresses.admin_url, addresses.home, callers=callers)
    text = write_banner(Snapshot(1, (serve_model(name="m"),)), at, colour=False)
    found = [line for line in text.splitlines() if line.startswith("  Callers")]
    assert [said in line for line in found] == ([True] if said else [])
    assert "$KEY" not in text
    assert ("--cert CLIENT.pem" in text) == (callers == "certified")
