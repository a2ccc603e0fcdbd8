"""Labels and pairs over both databases: who was right, whatever comes late, twice or for nothing."""

from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperion.policy.release.state import Labelled
from hyperion.schema.release import PredictionRow, ValuePair
from hyperion.store import labels, predictions
from hyperion.store.database import Database
from hyperion.store.labels import Label
from tests.store.places import Place


def pair(name: str, given: str, shadow: str, time: float = 10.0, epoch: int = 3, endpoint: str = "e") -> ValuePair:
    return ValuePair(name, endpoint, epoch, given, shadow, time)


def losses(database: Database, first: int = 1, last: int = 9, since: float = 0.0) -> Labelled:
    with database.read() as tx:
        return labels.count_losses(tx, "e", first, last, since)


def put(database: Database, pairs: Sequence[ValuePair] = (), *given: Label) -> int:
    with database.write() as tx:
        labels.put_pairs(tx, pairs)
        return labels.put_many(tx, given)


def test_who_was_right_is_counted_by_pair(place: Place) -> None:
    database = place.open()
    assert losses(database) == Labelled((0, 0, 0))
    pairs = [pair(f"{kind}{number}", kind[0], kind[1]) for kind in ("xy", "yx", "xx", "yz") for number in range(130)]
    unknown = put(database, pairs, *[Label(one.id, "ann", "x", 20.0) for one in pairs[::2]])
    assert unknown == 0
    assert losses(database) == Labelled((65, 130, 65), both_wrong=65)
    assert put(database, pairs, *[Label(one.id, "ann", "x", 21.0) for one in pairs[::2]]) == 0
    assert losses(database) == Labelled((65, 130, 65), both_wrong=65), "what comes twice changes nothing"


def test_a_label_may_come_first_and_is_unknown_till_then(place: Place) -> None:
    database = place.open()
    with database.write() as tx:
        predictions.put_many(tx, [PredictionRow("sampled", "e", "1", "d", 2, "ok", 1.0, 1.0)])
    assert put(database, (), Label("sampled", "a", "x", 1.0), Label("p", "a", "x", 1.0), Label("p", "b", "x", 1.0)) == 1
    assert losses(database) == Labelled((0, 0, 0))
    assert put(database, [pair("p", "x", "y")]) == 0
    assert losses(database) == Labelled((0, 0, 1))


def test_only_pairs_of_the_rollout_count(place: Place) -> None:
    database = place.open()
    pairs = [
        pair("mine", "x", "y"),
        pair("early", "x", "y", epoch=1),
        pair("late", "x", "y", epoch=8),
        pair("before", "x", "y", time=4.0),
        pair("other", "x", "y", endpoint="f"),
        pair("unlabelled", "x", "y"),
    ]
    put(database, pairs, *[Label(one.id, "a", "x", 1.0) for one in pairs[:-1]])
    assert losses(database, 2, 7, since=5.0) == Labelled((0, 0, 1))


def test_the_newest_label_and_the_newest_pair_count_once(place: Place) -> None:
    database = place.open()
    put(database, [pair("p", "x", "y")], Label("p", "a", "x", 5.0), Label("p", "b", "y", 6.0))
    assert losses(database) == Labelled((1, 0, 0)), "b said so later"
    put(database, (), Label("p", "b", "x", 5.5), Label("p", "a", "x", 7.0))
    assert losses(database) == Labelled((0, 0, 1)), "b's older label changes nothing, a's newer one does"
    put(database, (), Label("p", "b", "y", 7.0))
    assert losses(database) == Labelled((1, 0, 0)), "at the same time the source's name decides"
    put(database, [pair("p", "z", "z", time=9.0)])
    assert losses(database) == Labelled((1, 0, 0))
    put(database, [pair("p", "z", "z", time=11.0)])
    assert losses(database) == Labelled((0, 1, 0), both_wrong=1)
    put(database, [pair("a\0b", "x", "x")], Label("a\0b", "a\ud800", "x", 1.0))
    assert losses(database) == Labelled((0, 2, 0), both_wrong=1)


def test_old_ones_are_forgotten(place: Place) -> None:
    database = place.open()
    times = [float(number) for number in range(20)]
    put(database, [pair(str(at), "x", "y", at) for at in times], *[Label(str(at), "a", "x", at) for at in times])
    with database.write() as tx:
        assert labels.prune(tx, 15.0) == 30
    assert losses(database) == Labelled((0, 0, 5))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_history_is_counted_as_a_plain_loop_counts_it(place: Place, data: st.DataObject) -> None:
    """Times are told apart, as two reports at the very same time may win in either order."""
    value = st.sampled_from("xyz")
    ids = [str(number) for number in range(4)]
    pairs = {name: pair(name, data.draw(value), data.draw(value), 1e6) for name in ids}
    drawn = data.draw(st.lists(st.tuples(st.sampled_from(ids), st.sampled_from("ab"), value), max_size=12))
    times = data.draw(st.permutations(range(len(drawn))))
    given = [Label(*row, float(time)) for row, time in zip(drawn, times, strict=True)]
    database = place.open()
    with database.write() as tx:
        labels.prune(tx, 1e9)
    for label in given:
        put(database, (), label)
    put(database, list(pairs.values()))
    truth = {label.prediction_id: label.label for label in sorted(given, key=lambda label: label.time)}
    counts = [0, 0, 0]
    for name, label in truth.items():
        counts[1 + (pairs[name].given == label) - (pairs[name].shadow == label)] += 1
    assert losses(database).losses == tuple(counts)
