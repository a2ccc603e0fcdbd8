"""What the requests of one endpoint count for, made from its part of a snapshot. Called by `gateway/route`."""

from collections.abc import Mapping

from hyperion.gateway.pool import VersionPool
from hyperion.gateway.release.counts import Counts
from hyperion.gateway.release.shadow import Mirror
from hyperion.gateway.release.split import SplitRoute, Watch
from hyperion.gateway.release.tally import Tally
from hyperion.schema.release import Split
from hyperion.schema.snapshot import ServedModel


def is_live(split: Split | None) -> bool:
    """Whether a release is under way, of which control wants to know at once."""
    return split is not None and (len(split.tracks) > 1 or bool(split.shadow) or split.sampling)


def make_watch(
    model: ServedModel, versions: Mapping[str, VersionPool], route: SplitRoute | None, counts: Counts
) -> Watch:
    """The tallies of an endpoint that has a split or keeps a log."""
    tallies: dict[str, Tally] = {}
    logs: dict[str, Tally] = {}
    split = model.split
    if split is not None and route is not None:
        control = split.tracks[0].version
        mirror = _make_mirror(model, split, versions, counts)
        for track in split.tracks:
            pool = versions.get(track.version)
            if pool is not None:
                tally = counts.tally(
                    model.name, pool.served, split, sampling=track.version == control and split.sampling
                )
                tally.log_sample = model.log_sample
                tally.mirror = mirror
                tallies[track.version] = tally
    if model.log_sample > 0:
        for version, pool in versions.items():
            logs[version] = log = counts.log_only(model.name, pool.served)
            log.log_sample = model.log_sample
    for version, pool in versions.items():
        for counted in (tallies.get(version), logs.get(version)):
            if counted is not None:
                counted.redact(pool.redaction)
    return Watch(route, tallies, logs, is_live(split))


def _make_mirror(
    model: ServedModel, split: Split, versions: Mapping[str, VersionPool], counts: Counts
) -> Mirror | None:
    """What copies requests to the shadow, where the split has one; one per epoch, whatever becomes of the pools."""
    pool = versions.get(split.shadow)
    if pool is None or split.shadow_share <= 0:
        return None
    tally = counts.tally(model.name, pool.served, split, shadow=True)
    tally.log_sample = model.log_sample
    tally.redact(pool.redaction)
    mirror = counts.mirrors.get((model.name, split.epoch))
    if mirror is None:
        mirror = counts.mirrors[model.name, split.epoch] = Mirror(counts, model.name, split, tally, pool)
    mirror.pool = pool
    return mirror
