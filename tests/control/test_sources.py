"""From PATHs to desired models."""

from pathlib import Path

import pytest

from hyperion.control.sources import find_in_repositories, record_sources, resolve
from hyperion.schema.config import Source
from hyperion.schema.errors import HyperionError, InvalidConfig, ModelRefused, UnknownModel
from hyperion.schema.model import ModelOptions
from hyperion.store.desired import DesiredState

MODEL = """
class Model:
    inputs = {"x": ("FP32", [-1, 2])}
    outputs = {"y": ("FP32", [-1, 2])}

    def predict(self, inputs):
        return {"y": inputs["x"]}
"""


@pytest.fixture
def desired(tmp_path: Path) -> DesiredState:
    return DesiredState(tmp_path / "hyperion.db")


def write_model(folder: Path, options: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    if options:
        (folder / "hyperion.yaml").write_text(options)
    return folder


def record(desired: DesiredState, *sources: Source) -> dict[str, tuple[int, str]]:
    memory = record_sources(sources, ModelOptions(), desired)
    return {name: (resolved.generation, resolved.error) for name, resolved in memory.models.items()}


def test_each_path_becomes_a_model_of_its_name(tmp_path: Path, desired: DesiredState) -> None:
    sources = [Source(str(write_model(tmp_path / name))) for name in ("a", "b")]
    assert record(desired, *sources) == {"a": (1, ""), "b": (1, "")}
    assert [(row.name, row.serve) for row in desired.list()] == [("a", True), ("b", True)]


def test_recording_the_same_paths_again_changes_no_generation(tmp_path: Path, desired: DesiredState) -> None:
    source = Source(str(write_model(tmp_path / "a")))
    assert record(desired, source) == record(desired, source) == {"a": (1, "")}


def test_paths_of_an_earlier_start_are_kept_but_not_served(tmp_path: Path, desired: DesiredState) -> None:
    record(desired, Source(str(write_model(tmp_path / "a"))))
    record(desired, Source(str(write_model(tmp_path / "b"))))
    assert [(row.name, row.serve) for row in desired.list()] == [("a", False), ("b", True)]


def test_what_the_command_line_says_wins_over_what_lies_beside_the_model(tmp_path: Path, desired: DesiredState) -> None:
    folder = write_model(tmp_path / "a", "replicas: 3\nmax_batch_size: 8\n")
    memory = record_sources((Source(str(folder), overrides={"replicas": 2}),), ModelOptions(), desired)
    options = memory.models["a"].specs[0].options
    assert (options.replicas, options.max_batch_size) == (2, 8)
    row = desired.get("a")
    assert row is not None
    assert resolve(row).specs[0].options == options


def test_a_refused_model_of_a_repository_does_not_stop_its_neighbours(tmp_path: Path, desired: DesiredState) -> None:
    repository = tmp_path / "repository"
    write_model(repository / "good")
    write_model(repository / "bad", "replicas: many\n")
    found = record(desired, Source(str(repository)))
    assert found["good"] == (1, "")
    assert "replicas" in found["bad"][1]


def test_a_repository_of_which_all_is_refused_is_an_error(tmp_path: Path, desired: DesiredState) -> None:
    repository = tmp_path / "repository"
    for name in ("a", "b"):
        write_model(repository / name, "replicas: many\n")
    with pytest.raises(HyperionError, match="replicas"):
        record(desired, Source(str(repository)))


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [("model.py", "x = (", "fraud/model.py line 1: "), ("hyperion.yaml", "replica: 2", "fraud/hyperion.yaml line 1: ")],
)
def test_an_error_in_a_file_says_of_which_model(
    tmp_path: Path, desired: DesiredState, file: str, text: str, says: str
) -> None:
    folder = write_model(tmp_path / "fraud")
    row = desired.put("fraud", folder, ModelOptions())
    (folder / file).write_text(text)
    assert resolve(row).error.startswith(says)
    with pytest.raises(HyperionError) as caught:
        record(desired, Source(str(folder)))
    assert caught.value.message.startswith(says)


def test_a_path_that_holds_no_model_is_an_error(tmp_path: Path, desired: DesiredState) -> None:
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(ModelRefused):
        record(desired, Source(str(tmp_path / "notes.md")))


def test_two_models_of_one_name_are_an_error_that_names_it(tmp_path: Path, desired: DesiredState) -> None:
    paths = [write_model(tmp_path / parent / "same") for parent in ("one", "two")]
    with pytest.raises(InvalidConfig, match='"same"'):
        record(desired, *(Source(str(path)) for path in paths))


def test_a_source_that_disappeared_is_an_error_of_its_model_alone(tmp_path: Path, desired: DesiredState) -> None:
    row = desired.put("gone", tmp_path / "gone", ModelOptions())
    assert "no such file" in resolve(row).error


def test_a_model_added_to_a_served_repository_is_found(tmp_path: Path) -> None:
    write_model(tmp_path / "repository" / "old")
    sources = (Source(str(tmp_path / "repository")),)
    added = write_model(tmp_path / "repository" / "new")
    assert find_in_repositories("new", sources, ModelOptions())[0] == added


@pytest.mark.parametrize("name", ["nothing", "..", "old/../old", "/etc"])
def test_only_a_directory_of_a_served_repository_is_found(tmp_path: Path, name: str) -> None:
    write_model(tmp_path / "repository" / "old")
    with pytest.raises(UnknownModel):
        find_in_repositories(name, (Source(str(tmp_path / "repository")),), ModelOptions())
