"""`hyperion.yaml`: which options it may set, over and under what, and how a wrong one is refused by line."""

from pathlib import Path

import pytest

from hyperion.schema.errors import InvalidConfig
from hyperion.schema.model import ModelOptions
from hyperion.store.repositories.discover import discover
from tests.store.layout import lay_out, only, refusal

MODEL = {"model.py": "class Model: pass"}


def with_yaml(root: Path, text: str | bytes) -> Path:
    return lay_out(root / "m", {**MODEL, "hyperion.yaml": text})


def test_every_option_but_trust_can_be_set(tmp_path: Path) -> None:
    spec = only(
        with_yaml(
            tmp_path,
            """
            name: fraud
            max_batch_size: 32
            max_delay_ms: 1.5
            buckets: [1, 32]
            replicas: 2
            threads: 3
            memory_mb: 512
            deadline_ms: 500
            warmup: false
            device: cuda:1
            env: {OMP_NUM_THREADS: 1, MODE: fast}
            labels: {team: risk}
            """,
        )
    )
    assert spec.name == "fraud"
    assert spec.options == ModelOptions(
        max_batch_size=32,
        max_delay_ms=1.5,
        buckets=(1, 32),
        replicas=2,
        threads=3,
        memory_mb=512,
        deadline_ms=500,
        warmup=False,
        device="cuda:1",
        env={"OMP_NUM_THREADS": "1", "MODE": "fast"},
        labels={"team": "risk"},
    )


def test_the_file_wins_over_defaults_and_the_command_line_over_the_file(tmp_path: Path) -> None:
    folder = with_yaml(tmp_path, "name: from-file\nreplicas: 2\nthreads: 3\n")
    given = ModelOptions(replicas=5, threads=5, deadline_ms=7)
    (spec,) = discover(folder, given, name="given", pinned=frozenset({"threads"}))
    assert spec.name == "given"
    assert (spec.options.replicas, spec.options.threads, spec.options.deadline_ms) == (2, 5, 7)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}\n"])
def test_an_empty_file_changes_nothing(tmp_path: Path, text: str) -> None:
    assert only(with_yaml(tmp_path, text)).options == ModelOptions()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nmax_batchsize: 3", 'line 2: unknown key "max_batchsize"; did you mean "max_batch_size"?'),
        ("zzz: 1", "known: name, max_batch_size"),
        ("\n\nreplicas: many", "line 3: replicas: expected int, got str"),
        ("replicas: true", "line 1: replicas: expected int, got bool"),
        ("replicas: 1.5", "replicas"),
        ("replicas: -1", "line 1: replicas: expected 0 to 1024, got -1"),
        ("replicas:", "replicas"),
        ("max_batch_size: 0", "max_batch_size: expected 1 to 65536, got 0"),
        ("max_delay_ms: .nan", "max_delay_ms: expected 0 to 1000, got nan"),
        ("max_delay_ms: 1001", "max_delay_ms"),
        ("deadline_ms: 0", "deadline_ms"),
        ("device: gpu", "device: expected auto, cpu, cuda or cuda:N"),
        ("buckets: [1, 128]", "buckets: expected at most 64 sizes from 1 to max_batch_size (64)"),
        ("max_batch_size: 8\nbuckets: [16]", "line 2: buckets"),
        ("buckets: 8", "line 1: buckets: expected array, got int"),
        ("warmup: 1", "warmup: expected bool"),
        ("name: [a]", "name: expected text, got list"),
        ("env: [A]", "env: expected a mapping"),
        ("env: {A: true}", 'quotes around the value of "A"'),
        ("env: {A: [1]}", 'quotes around the value of "A"'),
        ("env: {1: a}", "env: expected texts"),
        ("env: {A-B: x}", "'A-B' is not an environment variable's name"),
        ("labels: {team: null}", "labels"),
        ("- a", "line 1: expected a mapping"),
        ("name: a\nname: b", '"name" is given twice, first in line 1'),
        ("1: a", "line 1: expected a plain text key"),
        ("[a, b]: c", "line 1: expected a plain text key"),
        ("name: 'a", "not valid YAML"),
        ("name: a\n---\nname: b", "not valid YAML"),
        ("name: !!python/object/apply:os.system [id]", "not valid YAML"),
        ("replicas: !!int ''", "not valid YAML"),
        ("warmup: !!bool maybe", "not valid YAML"),
        ("name: \0", "not valid YAML"),
        ("name: 2026-02-31", "not valid YAML"),
        ("replicas: " + "1" * 5000, "not valid YAML"),
        ("name: " + "[" * 40 + "]" * 40, "nested deeper than 32"),
        ("name: " + "[" * 1000, "nested deeper than 32"),
        ("a: &a [*a]", "contains itself"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    message = refusal(with_yaml(tmp_path, text), error=InvalidConfig)
    assert message.startswith("hyperion.yaml")
    assert says in message


def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    assert "hyperion.yaml: name: 'a b' cannot be a model's name" in refusal(with_yaml(tmp_path, "name: a b"))


def test_aliases_that_expand_without_bound_are_refused_at_once(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))
    assert "expands to more than" in refusal(with_yaml(tmp_path, bomb), error=InvalidConfig)


def test_a_file_over_its_limit_is_refused(tmp_path: Path) -> None:
    assert "larger than the 64 KiB" in refusal(with_yaml(tmp_path, b"#" * (64 * 1024 + 1)))


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    assert "not UTF-8" in refusal(with_yaml(tmp_path, b"name: \xff"))


def test_a_model_cannot_grant_itself_trust(tmp_path: Path) -> None:
    message = refusal(with_yaml(tmp_path, "trust_pickle: true"), error=InvalidConfig)
    assert "line 1: trust_pickle" in message
    assert "--trust-pickle" in message


@pytest.mark.parametrize("variable", ["LD_PRELOAD", "PYTHONPATH", "PATH", "HYPERION_TRUST_PICKLE", "ld_library_path"])
def test_a_model_cannot_set_variables_that_choose_the_code_that_runs(tmp_path: Path, variable: str) -> None:
    message = refusal(with_yaml(tmp_path, f"env: {{{variable}: /tmp/x}}"), error=InvalidConfig)
    assert variable in message


def test_a_link_to_nothing_is_refused_not_ignored(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "m", MODEL)  # type: ignore[arg-type]
    (folder / "hyperion.yaml").symlink_to("gone")
    assert "hyperion.yaml: cannot be read" in refusal(folder)


def test_the_file_counts_in_every_kind_of_directory(tmp_path: Path, files: Path) -> None:
    options = {"hyperion.yaml": "name: chosen\nreplicas: 2\nlabels: {a: b}\n"}
    onnx = files / "m.onnx"
    flavors = "flavors: {onnx: {data: m.onnx}}\nrun_id: r1\n"
    folders = [
        lay_out(tmp_path / "file", {"m.onnx": onnx, **options}),
        lay_out(tmp_path / "triton", {"1/model.onnx": onnx, "config.pbtxt": "max_batch_size: 4", **options}),
        lay_out(tmp_path / "mlflow", {"m.onnx": onnx, "MLmodel": flavors, **options}),
        lay_out(
            tmp_path / "mlserver",
            {
                "model-settings.json": '{"name": "x", "implementation": "mlserver_lightgbm.LightGBMModel"}',
                "model.txt": files / "m.txt",
                **options,
            },
        ),
    ]
    for folder in folders:
        spec = only(folder)
        assert (spec.name, spec.options.replicas, spec.options.labels["a"]) == ("chosen", 2, "b"), folder.name
    assert only(folders[1]).options.max_batch_size == 4
    assert only(folders[2]).options.labels == {"a": "b", "mlflow.run_id": "r1"}
