"""When a release begins, and when it does not."""

from itertools import count

import pytest
from msgspec.structs import replace

from hyperion.control.release.aim import aim, stable_version
from hyperion.control.release.book import Desired
from hyperion.control.release.record import Record, decode_record, encode_record
from hyperion.policy.release.rollout import decide
from hyperion.policy.release.state import Command, Observed
from hyperion.schema.registry import FileEntry, Manifest
from hyperion.schema.resource import Batching, Endpoint, EndpointSpec, Metadata, Rollout
from hyperion.store.rollouts import CommandRow

ENDPOINT = "fraud"


def manifest(version: str, content: str = "a", model: str = ENDPOINT) -> Manifest:
    return Manifest(model, version, f"sha256:{content * 64}", "onnx", (FileEntry("m.onnx", content * 64, 1),), "m.onnx")


def desired(named: Manifest | None, spec: EndpointSpec | None = None, error: str = "") -> Desired:
    spec = spec or EndpointSpec(f"{ENDPOINT}@1", rollout=Rollout("all-at-once"))
    return Desired(Endpoint(Metadata(ENDPOINT), spec), 1, named, error)


def begin(wanted: Desired, old: Record | None = None, forced: CommandRow | None = None) -> Record:
    ids = (f"r{n}" for n in count(1 if old is None else int(old.state.rollout_id[1:]) + 1))
    record, _ = aim(wanted, old, 100.0, lambda: next(ids), forced)
    assert record is not None
    return record


def promoted(record: Record) -> Record:
    rollout = Rollout("all-at-once")
    state = record.state
    for now in range(101, 110):
        seen = Observed(candidate="ready", acknowledged_epoch=state.epoch)
        state = decide(rollout, EndpointSpec("m@1").slo, state, seen, float(now)).state
    assert state.state == "promoted"
    return replace(record, state=state)


def test_the_first_release_has_nothing_to_compare_with() -> None:
    record = begin(desired(manifest("1")))
    assert (record.state.from_version, record.state.to_version) == ("", "1")
    assert record.kept.runtimes["1"].digest == manifest("1").digest


def test_the_same_target_begins_nothing_and_another_version_or_digest_does() -> None:
    first = promoted(begin(desired(manifest("1"))))
    assert begin(desired(manifest("1")), first) == first
    second = begin(desired(manifest("2", "b")), first)
    assert (second.state.from_version, second.state.to_version) == ("1", "2")
    assert second.state.rollout_id != first.state.rollout_id
    assert second.state.epoch > first.state.epoch


def test_neither_an_undo_nor_a_halt_is_undone_by_the_next_look() -> None:
    second = promoted(begin(desired(manifest("2", "b")), promoted(begin(desired(manifest("1"))))))
    seen = Observed(candidate="ready", acknowledged_epoch=second.state.epoch)
    undone = decide(Rollout("all-at-once"), EndpointSpec("m@1").slo, second.state, seen, 120.0, Command("undo"))
    record = replace(second, state=undone.state)
    assert stable_version(record.state) == "1"
    assert begin(desired(manifest("2", "b")), record) == record


def test_a_restart_begins_anew_for_the_same_target() -> None:
    first = promoted(begin(desired(manifest("1"))))
    second = begin(desired(manifest("2", "b")), first)
    halted = replace(second, state=replace(second.state, state="halted"))
    command = CommandRow(1, ENDPOINT, "restart", "", "ann", "it was the network", 0.0)
    again = begin(desired(manifest("2", "b")), halted, command)
    assert again.state.rollout_id != halted.state.rollout_id
    assert (again.state.from_version, again.state.to_version) == ("1", "2")
    # Its replicas were given up, and one whose failure is still in sight must not speak for the new ones.
    assert again.kept.runtimes["2"].generation == second.kept.runtimes["2"].generation + 1


def test_a_restart_of_a_version_that_is_still_warm_takes_its_replicas() -> None:
    second = promoted(begin(desired(manifest("2", "b")), promoted(begin(desired(manifest("1"))))))
    seen = Observed(candidate="ready", stable_ready=True, acknowledged_epoch=second.state.epoch)
    undone = decide(Rollout("all-at-once"), EndpointSpec("m@1").slo, second.state, seen, 99.0, Command("undo"))
    record = replace(second, state=undone.state)
    again = begin(desired(manifest("2", "b")), record, CommandRow(1, ENDPOINT, "restart", "", "ann", "", 0.0))
    assert again.kept.runtimes["2"].generation == second.kept.runtimes["2"].generation


def test_a_target_that_serves_already_needs_no_comparison() -> None:
    first = promoted(begin(desired(manifest("1"))))
    halted = begin(desired(manifest("2", "b")), first)
    halted = replace(halted, state=replace(halted.state, state="halted"))
    back = begin(desired(manifest("1")), halted)
    assert (back.state.from_version, back.state.to_version) == ("", "1")


def test_other_options_are_a_new_generation_of_replicas_and_no_release() -> None:
    first = promoted(begin(desired(manifest("1"))))
    spec = EndpointSpec("fraud@1", rollout=Rollout("all-at-once"), batching=Batching(max_size=8))
    changed = begin(desired(manifest("1"), spec), first)
    assert changed.state == first.state
    assert changed.kept.runtimes["1"].generation == 2


def test_a_version_of_another_model_with_the_same_name_gets_a_label_of_its_own() -> None:
    first = promoted(begin(desired(manifest("1"))))
    other = begin(desired(manifest("1", "b", model="other")), first)
    assert other.state.to_version == "1-bbbbbbbb"
    assert other.kept.runtimes["1"].model == ENDPOINT
    assert other.kept.runtimes["1-bbbbbbbb"].model == "other"


@pytest.mark.parametrize("old", [None, "promoted"])
def test_a_model_that_names_nothing_changes_nothing(old: str | None) -> None:
    record = promoted(begin(desired(manifest("1")))) if old else None
    assert aim(desired(None, error="no such model"), record, 1.0, lambda: "r", None) == (record, ())


def test_a_record_comes_back_from_the_store_as_it_was() -> None:
    record = replace(promoted(begin(desired(manifest("1")))), revision=3)
    assert decode_record(encode_record(record), 3) == record
