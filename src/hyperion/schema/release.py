"""What a release is to both planes: how the traffic of an endpoint is split, and what gateways count of it.

Control publishes a `Split` in the snapshot; each gateway counts per split and version and reports the counts, which
are cumulative for the life of the gateway, so that a report may be lost or repeated.
"""

from msgspec import Struct

from hyperion.schema.usage import UsageRow

CATEGORIES_MAX = 32


class Track(Struct, frozen=True):
    """A version and its share of the requests, 0 to 1."""

    version: str
    share: float


class OutputBins(Struct, frozen=True):
    """Into which bins the predictions of an output are counted: by the inner `edges` of numbers (n edges make n + 1
    bins, the last one open), or by `labels` (the last bin, behind them, is for any other). Frozen when a rollout
    starts, from the control's own predictions. A class is the index of the largest of a row's numbers where `argmax`
    is set."""

    output: str
    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    argmax: bool = False


class Split(Struct, frozen=True):
    """How an endpoint's requests that name no version are divided. The first track is the control (the version that
    served before), the second, if any, the canary. `epoch` grows with every change of shares, shadow or frozen
    values, and counts are kept per epoch. `shadow` is a version that gets copies of `shadow_share` of the requests and
    never answers. A request sticks to a version by the hash of `salt` and the header or input field named; without
    either the choice is random. `slow_ns` is how long a request may take before it counts as slow; 0 is not known yet.
    `sampling` asks for the sample of outputs that bins are made of. `slice_input` is the input whose first value says
    to which slice a pair of answers belongs. `keep_values` asks for the `ValuePair`s of shadowed requests."""

    epoch: int
    salt: str
    tracks: tuple[Track, ...]
    shadow: str = ""
    shadow_share: float = 0.0
    sticky_header: str = ""
    sticky_input: str = ""
    slow_ns: int = 0
    bins: OutputBins | None = None
    sampling: bool = False
    slice_input: str = ""
    keep_values: bool = False


class TrackCounts(Struct, frozen=True):
    """What one gateway saw of one version in one epoch. One event per request that reached the version: `requests`;
    of these `errors` were not the caller's fault and `slow` took longer than the split's `slow_ns`. `mirrored` are
    the requests of the shadow, which count as events, too, but never towards the split. `latency` is a histogram:
    bucket i holds those of (2^((i-1)/4), 2^(i/4)] microseconds, 128 buckets. `bins` counts predictions as `Split.bins`
    says. `reasons` are the first few distinct error codes with their counts."""

    endpoint: str
    epoch: int
    version: str
    shadow: bool = False
    requests: int = 0
    errors: int = 0
    slow: int = 0
    latency: tuple[int, ...] = ()
    bins: tuple[int, ...] = ()
    reasons: dict[str, int] = {}


class PairCounts(Struct, frozen=True):
    """How the shadow's predictions differ from the answers that were given, pair by pair, in one epoch. A pair counts
    in `flips` where the classes (or labels) differ, in `disagreements` where any number differs by more than 1e-3 of
    its size (or any label does). `abs_sum` and `abs_max` are over the largest absolute difference of each pair. The
    sums `x`, `y`, `xx`, `yy`, `xy` of each pair's first numbers give the correlation. `failed` counts copies that the
    shadow answered with an error, `dropped` copies that were not made because too many were open. `slices` has pairs
    and disagreements by slice."""

    endpoint: str
    epoch: int
    pairs: int = 0
    flips: int = 0
    disagreements: int = 0
    abs_sum: float = 0.0
    abs_max: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0
    failed: int = 0
    dropped: int = 0
    slices: dict[str, tuple[int, int]] = {}


class OutputSample(Struct, frozen=True):
    """Up to 512 first-row values of the control's first output, from which `OutputBins` are made. `kind` is number,
    class (the argmax of a row of several numbers) or label."""

    endpoint: str
    epoch: int
    output: str
    kind: str
    numbers: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()


class PredictionRow(Struct, frozen=True):
    """One sampled prediction, for lineage: no inputs and no outputs. `time` is in seconds since 1970."""

    id: str
    endpoint: str
    version: str
    digest: str
    epoch: int
    code: str
    time: float
    latency_ms: float
    shadow: bool = False


class ValuePair(Struct, frozen=True):
    """What the version that answered and the shadow predicted for one request, as `policy.values` writes them, so that
    a label can say which of them was right. Whole or not at all: it is made when the shadow has answered, too."""

    id: str
    endpoint: str
    epoch: int
    given: str
    shadow: str
    time: float


class GatewayReport(Struct, frozen=True):
    """All counts of one gateway's life, told by `incarnation`: worker number and a random part. `predictions` and
    `values` are those since the last report that was acknowledged; `usage` is that of the last two days on which
    there was any."""

    incarnation: str
    worker: int
    counts: tuple[TrackCounts, ...] = ()
    pairs: tuple[PairCounts, ...] = ()
    samples: tuple[OutputSample, ...] = ()
    predictions: tuple[PredictionRow, ...] = ()
    values: tuple[ValuePair, ...] = ()
    usage: tuple[UsageRow, ...] = ()
