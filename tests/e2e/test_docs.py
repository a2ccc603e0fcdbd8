"""The code in the documentation runs as it stands there, against the model that it shows."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hyperion.schema.model import ModelOptions
from hyperion.store.repositories.hyperion_yaml import read_hyperion_yaml
from hyperion.store.repositories.options import Layers
from tests.e2e.served import Served
from tests.services import needs_installed, needs_program

ROOT = Path(__file__).parents[2]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def curl_lines() -> list[str]:
    return [line for line in "\n".join(blocks("call-it.md", "sh")).splitlines() if line.startswith("curl")]


@pytest.fixture(scope="module")
def fraud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python model of docs/python-model.md, on disk."""
    model = tmp_path_factory.mktemp("docs") / "fraud"
    model.mkdir()
    (model / "model.py").write_text(blocks("python-model.md", "python")[0])
    np.save(model / "weights.npy", np.ones((4, 2), np.float32))
    return model


@pytest.fixture(scope="module")
def documented(fraud: Path) -> Iterator[Served]:
    """That model, beside the example that streams."""
    with Served(fraud.parent / "home", fraud, "examples/word_stream") as served:
        yield served


@pytest.mark.parametrize("line", [line for line in curl_lines() if "/invocations" not in line])
def test_a_curl_line_gets_an_answer(line: str, documented: Served) -> None:
    run_curl(line, documented)


def test_invocations_answer_where_there_is_one_model(fraud: Path, serve: Callable[..., Served]) -> None:
    (line,) = (line for line in curl_lines() if "/invocations" in line)
    run_curl(line, serve(fraud))


def run_curl(line: str, documented: Served) -> None:
    needs_program("curl", package="curl")
    line = line.replace("localhost:8080", f"localhost:{documented.port}").replace("curl ", "curl --fail-with-body ", 1)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r'"(outputs|predictions|model_name)":', done.stdout)


@pytest.mark.parametrize("block", blocks("call-it.md", "python"), ids=["tritonclient", "kserve"])
def test_a_program_prints_the_row_s_sum_twice(block: str, documented: Served) -> None:
    needs_installed("tritonclient" if "tritonclient" in block else "kserve", extra="dev")
    program = block.replace("localhost:8080", f"localhost:{documented.port}")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\[\[10\. +10\.\]\]", done.stdout), done.stdout


def test_the_options_of_the_page_are_all_there_are(tmp_path: Path) -> None:
    (tmp_path / "hyperion.yaml").write_text(blocks("python-model.md", "yaml")[0])
    name, layers = read_hyperion_yaml(tmp_path, Layers(ModelOptions()))
    assert (name, layers.options.replicas, layers.options.buckets) == ("fraud", 2, (1, 8, 64))
    shown = set(re.findall(r"^(\w+):", blocks("python-model.md", "yaml")[0], re.MULTILINE))
    assert shown == {*ModelOptions.__struct_fields__, "name"} - {"trust_pickle"}
