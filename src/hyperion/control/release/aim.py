"""When a new release begins: when an endpoint's resource names another version than the one the last release was for.

Pure but for the ids, which are handed in.
"""

from collections.abc import Callable

import msgspec

from hyperion.control.release.book import Desired, Event
from hyperion.control.release.record import Kept, Record, Runtime
from hyperion.control.specs import choose_options, key_of
from hyperion.policy.release.rollout import begin, kept_versions
from hyperion.policy.release.state import ReleaseState
from hyperion.schema.registry import Manifest
from hyperion.store.rollouts import CommandRow


def aim(
    desired: Desired, old: Record | None, now: float, new_id: Callable[[], str], forced: CommandRow | None = None
) -> tuple[Record | None, tuple[Event, ...]]:
    """Return the record to decide on, and the entries for the ledger; None where nothing was ever released and the
    resource names nothing. `forced` begins anew for the same version (a deploy after a halt)."""
    manifest = desired.manifest
    if manifest is None:
        return old, ()
    target = target_of(manifest)
    if old is not None and old.kept.target == target and forced is None:
        return _run_otherwise(desired, manifest, old), ()
    name = desired.endpoint.metadata.name
    state = old.state if old is not None else ReleaseState(name)
    kept = old.kept if old is not None else Kept()
    label = _label_of(manifest, kept)
    # Back to what serves: whatever was under way ends, and there is nothing to compare with.
    stable = stable_version(state) if stable_version(state) != label else ""
    runtime = _runtime_of(desired, manifest, kept.runtimes.get(label))
    if forced is not None and label not in kept_versions(state, now):
        # Other replicas than those of the last time, whose failure may still be in sight.
        runtime = msgspec.structs.replace(runtime, generation=runtime.generation + 1)
    runtimes = {**kept.runtimes, label: runtime}
    decision = begin(
        name,
        desired.endpoint.spec.rollout,
        rollout_id=new_id(),
        from_version=stable,
        from_digest=runtimes[stable].digest if stable in runtimes else "",
        to_version=label,
        to_digest=manifest.digest,
        epoch=state.epoch + 1,
        now=now,
    )
    actor, reason = ("control", target) if forced is None else (forced.actor, forced.reason)
    events = tuple(Event(kind, name, actor, reason, detail=detail) for kind, detail in decision.events)
    wanted = needed_labels(decision.state, now)
    runtimes = {key: value for key, value in runtimes.items() if key in wanted}
    record = Record(decision.state, Kept(target, runtimes), old.revision if old is not None else 0)
    return record, events


def target_of(manifest: Manifest) -> str:
    """What tells one target of a release from another: the version's name and what is in it."""
    return f"{manifest.model}@{manifest.version} {manifest.digest}"


def stable_version(state: ReleaseState) -> str:
    """The version that answers, or would if the rollout ended badly now."""
    return state.to_version if state.state == "promoted" else state.from_version


def needed_labels(state: ReleaseState, now: float) -> frozenset[str]:
    """The versions that something may still go to or come back to."""
    named = (state.from_version, state.to_version, state.previous_version)
    return frozenset((*kept_versions(state, now), *(name for name in named if name)))


def _run_otherwise(desired: Desired, manifest: Manifest, old: Record) -> Record:
    """The same version with other options (threads, batches): a new generation of its replicas, no release."""
    label = _label_of(manifest, old.kept)
    runtime = _runtime_of(desired, manifest, old.kept.runtimes.get(label))
    if old.kept.runtimes.get(label) in (None, runtime):
        return old
    return msgspec.structs.replace(old, kept=Kept(old.kept.target, {**old.kept.runtimes, label: runtime}))


def _runtime_of(desired: Desired, manifest: Manifest, old: Runtime | None) -> Runtime:
    key = key_of(choose_options(manifest.options, desired.endpoint.spec))
    generation = 1 if old is None else old.generation if old.options_key == key else old.generation + 1
    return Runtime(manifest.model, manifest.version, manifest.digest, generation, key)


def _label_of(manifest: Manifest, kept: Kept) -> str:
    """The version's name; with a piece of its digest where another model's version of that name is there."""
    old = kept.runtimes.get(manifest.version)
    if old is None or (old.model, old.digest) == (manifest.model, manifest.digest):
        return manifest.version
    return f"{manifest.version}-{manifest.digest.removeprefix('sha256:')[:8]}"
