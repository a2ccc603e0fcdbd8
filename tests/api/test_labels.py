"""Labels over the management API: who may give them, in which words, and how many are for nothing that is known."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from hyperion.policy.release.state import Labelled
from hyperion.schema.release import ValuePair
from hyperion.store import labels
from tests.api.platform import Platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("labels") / "home") as platform:
        yield platform


def item(prediction_id: str, label: Any, source: str = "ann", **more: Any) -> dict[str, Any]:
    return {"prediction_id": prediction_id, "label": label, "source": source, **more}


def losses(platform: Platform, endpoint: str) -> Labelled:
    with platform.database.read() as tx:
        return labels.count_losses(tx, endpoint, 0, 9, 0.0)


def test_labels_in_any_words_meet_their_predictions(platform: Platform) -> None:
    pairs = [("a", "3", "4"), ("b", "3", "4"), ("c", "1", "0"), ("d", "cat", "dog"), ("e", "0.1", "0.2")]
    with platform.database.write() as tx:
        labels.put_pairs(tx, [ValuePair(name, "words", 1, given, shadow, 1.0) for name, given, shadow in pairs])
    given = [item("a", 3), item("b", "3"), item("c", True), item("d", "cat"), item("e", 0.1)]
    assert platform.ask("labels", given).json() == {"accepted": 5, "unknown": 0}
    assert platform.ask("labels", given).json() == {"accepted": 5, "unknown": 0}
    assert losses(platform, "words") == Labelled((0, 0, 5))
    assert platform.ask("labels", [item("a", 4.0), item("early", "x")]).json() == {"accepted": 2, "unknown": 1}
    assert losses(platform, "words") == Labelled((1, 0, 4))


def test_a_label_from_the_future_can_be_corrected(platform: Platform) -> None:
    with platform.database.write() as tx:
        labels.put_pairs(tx, [ValuePair("f", "future", 1, "x", "y", 1.0)])
    platform.ask("labels", [item("f", "x", time=time.time() + 1e6)])
    platform.ask("labels", [item("f", "y")])
    assert losses(platform, "future") == Labelled((1, 0, 0))
    platform.ask("labels", [item("f", "x", time=5.0)])
    assert losses(platform, "future") == Labelled((1, 0, 0))


@pytest.mark.parametrize(
    "body",
    [
        [],
        [item("p", None)],
        [item("p", [1])],
        [item("p", "x", source="")],
        [item("", "x")],
        [item("p", 10**400)],
        [{"prediction_id": "p", "label": "x"}],
        [item("p", "x", who="me")],
        [item("p", "x", time=-1)],
        [item("p", "x" * 2_000)],
        b'[{"prediction_id":"p","source":"a","label":NaN}]',
        item("p", "x"),
        [item("p", "x")] * 10_001,
    ],
)
def test_what_is_no_label_is_refused(platform: Platform, body: Any) -> None:
    headers = {"content_type": "application/json"} if isinstance(body, bytes) else {}
    assert 400 <= platform.ask("labels", body, **headers).status < 500


def test_the_scope_is_infer_or_deploy_and_the_ledger_gets_no_entry(platform: Platform) -> None:
    expected = {"infer": 200, "deploy": 200, "read": 403}
    for scope, status in expected.items():
        made = platform.ask("keys", {"tenant": "acme", "scopes": [scope]}).json()
        before = platform.ask("ledger/entries?limit=1000").json()["items"]
        assert platform.ask("labels", [item("p", "x")], token=made["key"]).status == status
        assert platform.ask("ledger/entries?limit=1000").json()["items"] == before
    assert platform.ask("labels", [item("p", "x")], token="").status == 401
