"""What gateways keep of an endpoint's values: nothing of what it redacts, and no personal data in what is kept."""

import numpy as np
import pytest

from hyperion.gateway.pending import PendingCall
from hyperion.gateway.release.binning import MAX_LABEL, predictions, value_of
from hyperion.gateway.release.compare import MAX_TEXT, compare, first_text
from hyperion.gateway.release.counts import Counts
from hyperion.policy.redact import Redaction
from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from hyperion.schema.release import Split, Track
from hyperion.schema.snapshot import ServedVersion
from hyperion.wire.tensor import encode_elements, from_numpy

SERVED = ServedVersion("1", "d", 1, "p", Signature((), (TensorSpec("y", "BYTES", (-1,)),)), ModelOptions(), ())
EMAIL = b"jane.doe@example.com"


def texts(*elements: bytes, name: str = "y") -> Tensor:
    return Tensor(name, "BYTES", (len(elements),), encode_elements(elements))


def sample_with(redact: tuple[str, ...]) -> tuple[str, ...] | None:
    """What a gateway would send of two predictions, as labels."""
    counts = Counts()
    tally = counts.tally("e", SERVED, Split(1, "s", (Track("1", 1.0),), sampling=True), sampling=True)
    tally.redact(Redaction(redact))
    calls = [PendingCall(InferenceCall("e", "", "", ()), None, "http", f"r{row}", 0) for row in range(2)]  # type: ignore[arg-type]
    for pending in calls:
        pending.rows = 1
    tally.answered(calls, (texts(EMAIL, b"cat"),), 1)
    samples = counts.content(10)[2]
    return samples[0].labels if samples else None


def test_samples_are_made_without_what_the_endpoint_redacts() -> None:
    assert sample_with(()) == (EMAIL.decode(), "cat")
    assert sample_with(("email",)) == ("[email]", "cat")
    assert sample_with(("output:other",)) == (EMAIL.decode(), "cat")
    assert sample_with(("output:y",)) is None


def test_no_half_of_an_address_stays_where_a_label_is_cut() -> None:
    long = b"x" * (MAX_LABEL - 10) + b" " + EMAIL
    assert predictions([(texts(long), None)], Redaction(["email"]).value)[1] == ["x" * (MAX_LABEL - 10) + " [email]"]


@pytest.mark.parametrize(("element", "value"), [(b"cat", "cat"), (b"", ""), (EMAIL, None), (b"a " * 40 + EMAIL, None)])
def test_a_prediction_that_is_personal_data_is_not_paired(element: bytes, value: str | None) -> None:
    assert value_of([texts(element)], "y") == value


def test_a_slice_has_no_personal_data_in_its_name() -> None:
    assert first_text(texts(EMAIL)) == "[email]"
    assert "jane" not in first_text(texts(b"x" * (MAX_TEXT - 5) + b" " + EMAIL))


def test_of_a_hidden_output_only_whether_it_differs_is_told() -> None:
    one, other = (from_numpy("y", np.array([[value]], np.float32), "FP32") for value in (1.0, 7.0))
    shown, hidden = compare([one], [other]), compare([one], [other], frozenset({"y"}))
    assert (shown.largest, shown.given, shown.shadow) == (6.0, 1.0, 7.0)
    assert (hidden.disagrees, hidden.largest, hidden.given, hidden.shadow) == (True, 0.0, 0.0, 0.0)
