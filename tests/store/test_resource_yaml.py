"""Resources as people write them: what is read, and what each mistake is told."""

import io
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.errors import InvalidConfig, InvalidResource
from hyperion.schema.resource import Endpoint, Step
from hyperion.store.changes import compare
from hyperion.store.resource_yaml import read_resource, read_resources, to_document, write_yaml

HEAD = "kind: Endpoint\nmetadata: {name: fraud}\nspec:\n  model: fraud@1\n"
WHOLE = """\
apiVersion: hyperion/v1
kind: Endpoint
metadata: {name: fraud, labels: {team: risk}}
spec:
  model: fraud@champion
  replicas: {min: 2, max: 2}
  resources: {threads: 1, memory_mb: 1024, gpu: 0}
  batching: {max_size: 64, max_delay_ms: 0, buckets: [1, 8, 64]}
  deadline_ms: 1000
  slo: {availability: 99.9, latency_ms: {p95: 200}, window_days: 30}
  rollout:
    strategy: canary
    shadow: {percent: 100, min_pairs: 500, max_disagreement: 0.02}
    steps: [{percent: 1, hold_s: 60}, 5, 25, {pause: true}, 50]
    halt: {errors: {ratio: 1.2}, slow: null, drift: {distance: 0.1}, quality: {metric: accuracy, margin: 0.01},
           query: [{promql: up, max: 1}]}
    alpha: 0.01
    sticky: {header: x-user-id}
    deadline_s: 86400
    on_inconclusive: rollback
  log: {sample: 0.01}
"""


def read(tmp_path: Path, text: str, name: str = "fraud.yaml") -> list[Endpoint]:
    path = tmp_path / name
    path.write_text(textwrap.dedent(text))
    return read_resources([str(path)])


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(InvalidResource) as refused:
        read(tmp_path, text)
    return refused.value.message.replace(f"{tmp_path}/", "")


def test_the_whole_shape_is_read(tmp_path: Path) -> None:
    (endpoint,) = read(tmp_path, WHOLE)
    assert endpoint.metadata.labels == {"team": "risk"}
    assert endpoint.spec.rollout.steps == (Step(percent=1, hold_s=60), 5.0, 25.0, Step(pause=True), 50.0)
    assert endpoint.spec.rollout.halt.slow is None
    assert endpoint.spec.slo.latency_ms == {"p95": 200.0}


def test_what_is_written_can_be_read_again_and_says_no_defaults(tmp_path: Path) -> None:
    (endpoint,) = read(tmp_path, WHOLE)
    text = write_yaml([to_document(endpoint)])
    assert read(tmp_path, text, "again.yaml") == [endpoint]
    assert "deadline_s" not in text
    assert "slow: null" in text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("  batchin: {max_size: 2}", 'fraud.yaml:5: spec.batchin: unknown field; did you mean "batching"?'),
        (
            "  batching:\n    max_sise: 2",
            'fraud.yaml:6: spec.batching.max_sise: unknown field; did you mean "max_size"?',
        ),
        ("  zzz: 1", "fraud.yaml:5: spec.zzz: unknown field (known: model, upstream, graph, replicas"),
        (
            "  rollout:\n    steps:\n      - 1\n      - {percnt: 5}",
            'fraud.yaml:8: spec.rollout.steps[1].percnt: unknown field; did you mean "percent"?',
        ),
        ("  rollout: {strategy: canry}", "got 'canry'; did you mean \"canary\"?"),
        ("  cache: {ttl_s: 0}", "fraud.yaml:5: spec.cache.ttl_s: expected above 0"),
        ("  replicas:\n    idle_s: 3", "fraud.yaml:6: spec.replicas.idle_s: not done by this version"),
        ("  replicas: {min: 0}", "spec.replicas.min: 0 (scale to zero) is not done by this version"),
        ("  replicas: {min: 1, max: 4}", "spec.replicas.max: autoscaling is not done by this version"),
        ("  resources: {gpu: 2}", "spec.resources.gpu: more than one per replica is not done by this version"),
        ("  log: {redact: [emial]}", "spec.log.redact[0]: 'emial' is no detector; did you mean \"email\"?"),
        ("  deadline_ms: soon", "fraud.yaml:5: spec.deadline_ms: expected int, got text"),
        ("  deadline_ms: 0", "spec.deadline_ms: expected 1 to 3600000, got 0"),
        ("  rollout: {alpha: 0.5}", "spec.rollout.alpha: expected between 0 and 0.5, without these, got 0.5"),
        ("  rollout: {alpha: .nan}", "spec.rollout.alpha: expected a finite number, got nan"),
        ("  rollout: {steps: [5, 5]}", "spec.rollout.steps[1]: expected more than the step before (5), got 5"),
        ("  rollout: {steps: [101]}", "expected a percentage above 0, up to 100, got 101"),
        ("  rollout: {steps: []}", "expected 1 to 64 steps, got 0"),
        ("  rollout: {steps: [{percent: 5, pause: true}]}", "a step either pauses or has a percent"),
        ("  rollout: {strategy: blue-green, steps: [5]}", "spec.rollout.steps: means nothing with strategy blue-green"),
        ("  rollout: {halt: {slow: {quantile: 1}}}", "spec.rollout.halt.slow.quantile: expected between 0 and 1"),
        ("  rollout: {halt: {errors: {ratio: 0.5}}}", "spec.rollout.halt.errors.ratio: expected 1 to 1000, got 0.5"),
        ("  rollout: {halt: {query: [{promql: up}]}}", "spec.rollout.halt.query[0]: give max, min or both"),
        (
            "  rollout: {shadow: {}, halt: {quality: {metric: recall}}}",
            "fraud.yaml:5: spec.rollout.halt.quality.metric: expected accuracy, got 'recall'",
        ),
        ("  rollout: {halt: {quality: {}}}", "spec.rollout.halt.quality: is judged on pairs of predictions"),
        ("  rollout: {sticky: {}}", "spec.rollout.sticky: give either header or input"),
        ("  slo: {latency_ms: {fast: 3}}", "expected a quantile's name like p95"),
        ("  slo: {availability: 100}", "spec.slo.availability: expected between 0 and 100"),
        ("  log: {sample: 2}", "spec.log.sample: expected 0 to 1, got 2"),
        ("  model: other@1", '"model" is given twice, first in line 4'),
        ("  batching: {max_size: 4, buckets: [8]}", "spec.batching.buckets[0]: expected 1 to max_size (4), got 8"),
    ],
)
def test_a_mistake_is_told_with_its_field(tmp_path: Path, body: str, message: str) -> None:
    assert message in refusal(tmp_path, HEAD + body + "\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Endpont\n", "fraud.yaml:1: kind: 'Endpont' is unknown; did you mean \"Endpoint\"?"),
        ("kind: Policy\n", "fraud.yaml:1: kind: Policy is not done by this version"),
        ("metadata: {name: a}\n", "kind: is missing"),
        ("kind: Endpoint\napiVersion: hyperion/v2\n", "fraud.yaml:2: apiVersion: expected hyperion/v1"),
        ("kind: Endpoint\nmetadata: {name: a}\nspec: {}\n", "fraud.yaml:3: spec: expected exactly one of model"),
        ("kind: Endpoint\nmetadata: {name: a/b}\nspec: {model: a@1}\n", "metadata.name: expected 1 to 128 letters"),
        ("kind: Endpoint\nmetadata: {name: a}\nspec: {model: a}\n", "spec.model: expected NAME@VERSION or NAME@ALIAS"),
        ("- 1\n", "expected a mapping"),
        ("", "no resource in there"),
        ("kind: !!python/object:os.system x\n", "not valid YAML"),
        ("a: &a [*a]\nkind: Endpoint\n", "contains itself"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"{c}: &{c} [{','.join([f'*{p}'] * 10)}]\n" for p, c in pairwise("abcdefghi")),
            "expands to more than 100000 values",
        ),
        ("a: " + "[" * 5000 + "\n", "nested deeper"),
        (HEAD + "---\n" + HEAD, "'fraud' is given twice, first in"),
    ],
)
def test_what_is_no_resource_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text)


def test_files_directories_and_standard_input_are_read_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    for name in ("b", "a"):
        (folder / f"{name}.yaml").write_text(HEAD.replace("name: fraud", f"name: {name}"))
    (folder / "README.md").write_text("no resource")
    found = read_resources([str(folder), "-"], io.StringIO(HEAD))
    assert [resource.metadata.name for resource in found] == ["a", "b", "fraud"]
    with pytest.raises(InvalidConfig, match="no such file"):
        read_resources([str(tmp_path / "nothing")])
    with pytest.raises(InvalidResource, match="larger than"):
        read_resources(["-"], io.StringIO("#" * (2 << 20)))


def test_a_change_names_each_field_once_with_both_values(tmp_path: Path) -> None:
    old, new = read(tmp_path, HEAD)[0], read(tmp_path, HEAD + "  deadline_ms: 5\n  log: {sample: 0.5}\n")[0]
    change = compare(old, new)
    assert change.action == "configured"
    assert [(f.path, f.before, f.after) for f in change.fields] == [
        ("spec.deadline_ms", 30_000, 5),
        ("spec.log.sample", 0.01, 0.5),
    ]
    assert compare(new, new).action == "unchanged"
    assert compare(None, old).action == "created"


def test_what_a_deploy_made_meaningless_is_left_out(tmp_path: Path) -> None:
    """After `deploy --strategy blue-green` the stored steps rest; what `get` shows can still be applied."""
    import msgspec

    (endpoint,) = read(tmp_path, WHOLE)
    rollout = msgspec.structs.replace(endpoint.spec.rollout, strategy="blue-green")
    changed = msgspec.structs.replace(endpoint, spec=msgspec.structs.replace(endpoint.spec, rollout=rollout))
    document = to_document(changed)
    assert "steps" not in document["spec"]["rollout"]
    assert read_resource(document).spec.rollout.strategy == "blue-green"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(("replicas", "batching", "slo", "rollout", "log", "resources", "deadline_ms", "model"))


@given(st.dictionaries(FIELDS, json_values | st.fixed_dictionaries({"steps": json_values, "halt": json_values})))
def test_any_body_is_read_or_refused(spec: dict[str, Any]) -> None:
    body = {"kind": "Endpoint", "metadata": {"name": "a"}, "spec": {"model": "a@1", **spec}}
    try:
        endpoint = read_resource(body)
    except InvalidResource:
        return
    assert read_resource(to_document(endpoint)) == endpoint
