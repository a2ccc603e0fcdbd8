"""Microbenchmarks of the rules: `python bench/micro_rules.py` prints the microseconds that one check costs.

One range rule on an input of so many elements, in Python and in numpy, beside what a call costs without any rule. Where
numpy becomes faster is `gateway/front/rules.SMALL_ELEMENTS`. Compare such figures only on one machine, side by side.
"""

from functools import partial

import numpy as np

from bench.micro_wire import time_call
from hyperion.gateway.front import rules
from hyperion.gateway.front.rules import Rules
from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.protect import InputRule, SchemaRules
from hyperion.wire.tensor import encode_elements

OUTPUTS = (TensorSpec("y", "FP32", (-1,)),)
SHAPES = ((1, 4), (1, 20), (3, 20), (8, 16), (16, 20), (64, 100))


def main() -> None:
    """Prints a table."""
    print("elements   no rule    python     numpy  (us)")
    for rows, columns in SHAPES:
        array = np.random.default_rng(0).uniform(-1, 1, (rows, columns)).astype("<f4")
        call = InferenceCall("m", "", "", (Tensor("X", "FP32", array.shape, array.tobytes()),))
        signature = Signature((TensorSpec("X", "FP32", (-1, columns)),), OUTPUTS)
        idle = Rules(SchemaRules(), signature)
        ranged = Rules(SchemaRules(inputs={"X": InputRule(min=-10, max=10)}), signature)
        figures = [time_call(partial(idle.check, call, signature))]
        for small in (rows * columns, 0):
            rules.SMALL_ELEMENTS = small
            figures.append(time_call(partial(ranged.check, call, signature)))
        print(f"{rows * columns:8d} " + " ".join(f"{figure:9.2f}" for figure in figures))
    _texts()


def _texts() -> None:
    data = encode_elements([b"DE", b"FR", b"DE", b"DE"])
    call = InferenceCall("m", "", "", (Tensor("X", "BYTES", (4,), data),))
    signature = Signature((TensorSpec("X", "BYTES", (-1,)),), OUTPUTS)
    for name, rule in (
        ("enum", InputRule(enum=("DE", "FR"))),
        ("pattern", InputRule(pattern="[A-Z]{2}")),
        ("max_length", InputRule(max_length=8)),
    ):
        ruled = Rules(SchemaRules(inputs={"X": rule}), signature)
        print(f"4 texts, {name}: {time_call(partial(ruled.check, call, signature)):.2f} us")


if __name__ == "__main__":
    main()
