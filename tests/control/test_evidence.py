"""Counts of several gateways and lives: joined once each, whatever comes twice, late or never."""

from hyperion.control.release.evidence import Evidence, add_pairs, join_samples
from hyperion.schema.release import GatewayReport, OutputSample, PairCounts, PredictionRow, TrackCounts, ValuePair


def counts(requests: int, epoch: int = 1, version: str = "2", **more: object) -> TrackCounts:
    return TrackCounts("e", epoch, version, requests=requests, **more)  # type: ignore[arg-type]


def evidence(*reports: GatewayReport) -> Evidence:
    joined = Evidence(lambda: None)
    for report in reports:
        joined.take(report)
    return joined


def test_a_later_report_of_a_life_replaces_the_earlier_and_lives_are_added() -> None:
    joined = evidence(
        GatewayReport("0-a", 0, (counts(5, errors=1),)),
        GatewayReport("0-a", 0, (counts(7, errors=2),)),
        GatewayReport("0-a", 0, (counts(7, errors=2),)),
        GatewayReport("0-b", 0, (counts(3, latency=(0, 3)),)),
    )
    (total,) = joined.counts("e", 0)
    assert (total.requests, total.errors, total.latency) == (10, 2, (0, 3))


def test_epochs_versions_and_endpoints_are_kept_apart() -> None:
    joined = evidence(GatewayReport("0-a", 0, (counts(1), counts(2, epoch=2), counts(4, version="1"))))
    assert [(one.epoch, one.version, one.requests) for one in joined.counts("e", 0)] == [
        (1, "1", 4),
        (1, "2", 1),
        (2, "2", 2),
    ]
    assert [one.epoch for one in joined.counts("e", 2)] == [2]
    assert joined.counts("other", 0) == ()
    joined.forget("e", 2)
    assert [one.epoch for one in joined.counts("e", 0)] == [2]


def test_pairs_are_summed_and_the_largest_difference_is_the_largest_of_all() -> None:
    total = add_pairs(
        [
            PairCounts("e", 1, pairs=2, flips=1, abs_max=0.5, slices={"DE": (2, 1)}),
            PairCounts("e", 1, pairs=3, abs_max=0.7, slices={"DE": (1, 0), "FR": (2, 2)}),
        ]
    )
    assert (total.pairs, total.flips, total.abs_max) == (5, 1, 0.7)
    assert total.slices == {"DE": (3, 1), "FR": (2, 2)}


def test_samples_of_one_output_are_joined_and_bounded() -> None:
    first = OutputSample("e", 1, "y", "number", numbers=tuple(map(float, range(400))))
    assert len(join_samples([first, first]).numbers) == 512
    other = OutputSample("e", 1, "z", "label", labels=("a",))
    assert join_samples([first, other]) == first


def test_predictions_are_handed_over_once() -> None:
    row = PredictionRow("id", "e", "2", "sha256:x", 1, "200", 1.0, 2.0)
    joined = evidence(GatewayReport("0-a", 0, predictions=(row,)))
    assert joined.take_predictions() == [row]
    assert joined.take_predictions() == []
    values = ValuePair("p", "e", 1, "x", "y", 1.0)
    joined.take(GatewayReport("0-a", 0, values=(values,)))
    assert (joined.take_values(), joined.take_values()) == ([values], [])
