"""Which failures a fallback answers for, and how a request's time is shared along its chain. Pure; used by
`gateway/recovery/plan`.

Each attempt gets half of what is left, the last one all of it, and a little is kept where the chain ends with an answer
that is at hand: so the caller has one within its deadline, however the attempts end.
"""

from collections.abc import Sequence
from typing import Final

from hyperion.schema.model import Signature, TensorSpec

KEPT_SHARE: Final = 0.05
LEAST_KEPT_NS: Final = 15_000_000  # a gateway looks at deadlines every 10 ms
MOST_KEPT_NS: Final = 50_000_000  # writing down an answer that is at hand takes far less, a busy loop may not
LEAST_NS: Final = 1_000_000  # no attempt is worth beginning with less

# Who answers elsewhere would answer the same, or be harmed as well.
NEVER: Final = frozenset(("internal",))
AT_HAND_ONLY: Final = frozenset(("poison_request",))


def falls_back(code: str, blame: str, at_hand: bool) -> bool:
    """Whether a fallback may answer for a request that failed with the error `code`; `at_hand` where that fallback
    computes nothing. A caller's own mistake is told to the caller, and a request that ends processes is given to none.

    >>> falls_back("upstream_failed", "upstream", False), falls_back("schema_mismatch", "caller", True)
    (True, False)
    >>> falls_back("poison_request", "model", False), falls_back("poison_request", "model", True)
    (False, True)
    """
    return blame != "caller" and code not in NEVER and (at_hand or code not in AT_HAND_ONLY)


def share_ns(left_ns: int, later: int, at_hand: bool) -> int:
    """Nanoseconds of the `left_ns` that an attempt gets which `later` further attempts may follow, and an answer that
    is `at_hand` or not. 0 is too little to begin.

    >>> share_ns(1_000_000_000, 1, False), share_ns(1_000_000_000, 0, False), share_ns(1_000_000_000, 0, True)
    (500000000, 1000000000, 950000000)
    """
    kept = min(MOST_KEPT_NS, max(LEAST_KEPT_NS, int(KEPT_SHARE * left_ns)), left_ns // 2) if at_hand else 0
    usable = left_ns - kept
    share = usable // 2 if later else usable
    return share if share >= LEAST_NS else 0


def explain_misfit(own: Signature, other: Signature) -> str:
    """Why a model cannot stand in for one of the signature `own`: it takes other inputs, or does not give all outputs;
    "" where it can.

    >>> x, y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1,))
    >>> explain_misfit(Signature((x,), (y,)), Signature((x,), (x, y)))
    ''
    >>> explain_misfit(Signature((x,), (y,)), Signature((y,), (y,)))
    'it needs an input "y" besides'
    """
    for spec in other.inputs:
        if spec.name not in {known.name for known in own.inputs}:
            return f'it needs an input "{spec.name}" besides'
    return _explain("input", own.inputs, other.inputs) or _explain("output", own.outputs, other.outputs)


def _explain(kind: str, own: Sequence[TensorSpec], others: Sequence[TensorSpec]) -> str:
    by_name = {spec.name: spec for spec in others}
    for spec in own:
        other = by_name.get(spec.name)
        if other is None:
            return f'it has no {kind} "{spec.name}"'
        agree = len(spec.shape) == len(other.shape) and all(
            one == two or -1 in (one, two) for one, two in zip(spec.shape, other.shape, strict=True)
        )
        if spec.datatype != other.datatype or not agree:
            got = f"{other.datatype} {list(other.shape)}"
            return f'its {kind} "{spec.name}" is {got}, expected {spec.datatype} {list(spec.shape)}'
    return ""
