"""What requests to one endpoint must look like beyond the model's signature: unknown inputs, datatypes that may be
converted, and what each element must be.

Called through the guard for every decoded call, before it is admitted. An input without a rule costs one look-up. The
decisions are `policy/constraints`; here they meet bytes. Never shows more of a value than a few characters, and nothing
of an input that the endpoint redacts.
"""

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, Final

from hyperion.gateway.admit import check_call
from hyperion.gateway.front.coerce import coerce
from hyperion.policy.constraints import (
    Constraint,
    explain_misfit,
    find_in_array,
    find_number,
    find_text,
    is_idle,
    null_values,
    show_value,
)
from hyperion.policy.redact import Redaction, shorten
from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.errors import HyperionError, NotReady, SchemaMismatch
from hyperion.schema.model import Signature
from hyperion.schema.protect import InputRule, Scalar, SchemaRules
from hyperion.wire.tensor import DATATYPES, decode_elements, name_element, to_numpy

SMALL_ELEMENTS: Final = 64  # up to here Python is faster than numpy (bench/micro_rules.py)
SHOWN_CHARACTERS: Final = 16  # of a text
LOOKED_AT_BYTES: Final = 512  # of it, for personal data that must not be cut in half
MAX_SIGNATURES: Final = 64
KEPT_UNPACKERS: Final = 1_024

Unpack = Callable[[Any], tuple[Any, ...]]
_NO_RULE: Final = InputRule()


class InputCheck:
    """One input of a model and what it must be; `constraint` None asks nothing of its elements. `hidden` ones are not
    quoted."""

    __slots__ = ("_code", "_unpackers", "batched", "constraint", "datatype", "hidden", "name")

    def __init__(self, name: str, datatype: str, rule: InputRule, batched: bool, hidden: bool) -> None:
        self.name: Final = name
        self.datatype: Final = datatype
        self.batched: Final = batched
        self.hidden: Final = hidden
        self.constraint: Final = None if is_idle(rule) else Constraint(rule, datatype)
        self._code: Final = DATATYPES[datatype].code
        self._unpackers: Final[dict[int, Unpack]] = {}

    def check(self, tensor: Tensor, constraint: Constraint) -> None:
        """Raises SchemaMismatch for the first element that is not as it must be. The tensor is of this datatype, and
        whole: the decoders saw to that."""
        count = 1
        for length in tensor.shape:
            count *= length
        if self.datatype == "BYTES":
            elements = decode_elements(tensor.data, count)
            place = find_text(elements, constraint)
            if place >= 0:
                raise self._mismatch(tensor, place, self._quote(elements[place], constraint), constraint)
        elif count <= SMALL_ELEMENTS and self._code:
            unpack = self._unpackers.get(count)
            values = (unpack or self._unpacker(count))(tensor.data)
            place = find_number(values, constraint)
            if place >= 0:
                raise self._mismatch(tensor, place, self._show(values[place]), constraint)
        else:
            array = to_numpy(tensor)
            place = find_in_array(array, constraint)
            if place >= 0:
                raise self._mismatch(tensor, place, self._show(array.ravel()[place].item()), constraint)

    def changes(self, tensor: Tensor, place: int) -> SchemaMismatch:
        """The error for the element at `place`, which would not be the same as the datatype that the model takes."""
        where = name_element(tensor.shape, place, self.batched)
        value = self._show(to_numpy(tensor).ravel()[place].item())
        return SchemaMismatch(
            f'input "{self.name}": {where} {value} ({tensor.datatype}), which would change '
            f"as {self.datatype}; send {self.datatype}"
        )

    def _unpacker(self, count: int) -> Unpack:
        unpack = Struct(f"<{count}{self._code}").unpack
        if len(self._unpackers) < KEPT_UNPACKERS:
            self._unpackers[count] = unpack
        return unpack

    def _mismatch(self, tensor: Tensor, place: int, found: str, constraint: Constraint) -> SchemaMismatch:
        where = name_element(tensor.shape, place, self.batched)
        return SchemaMismatch(f'input "{self.name}": {where} {found}, expected {constraint.expected}')

    def _show(self, value: Any) -> str:
        """`is 3.5`: floats have a few digits only. Any, as compiled code would make a float of every number."""
        if self.hidden:
            return "is not what it must be (the endpoint redacts it)"
        return f"is {show_value(value)}"

    def _quote(self, element: bytes, constraint: Constraint) -> str:
        """`is 'Franc…'`, or for one that is too long how long it is."""
        if self.hidden:
            return "is not what it must be (the endpoint redacts it)"
        if constraint.max_length and len(element) > constraint.max_length:
            return f"has {len(element)} bytes"
        text = shorten(element[:LOOKED_AT_BYTES].decode("utf-8", "replace"), LOOKED_AT_BYTES)
        shown = repr(text[:SHOWN_CHARACTERS])
        return f"is {shown[:-1]}…{shown[-1]}" if len(text) > SHOWN_CHARACTERS else f"is {shown}"


class Plan:
    """The rules as they are for one signature. `misfit` says why they cannot be kept with it, "" where they can."""

    __slots__ = ("checks", "constrained", "misfit")

    def __init__(self, rules: SchemaRules, signature: Signature, redaction: Redaction) -> None:
        self.misfit: Final = explain_misfit(rules, signature)
        self.checks: Final[dict[str, InputCheck]] = {}
        self.constrained: Final[dict[str, tuple[InputCheck, Constraint]]] = {}
        if self.misfit:
            return
        for spec in signature.inputs:
            rule = rules.inputs.get(spec.name, _NO_RULE)
            hidden = spec.name in redaction.inputs
            check = InputCheck(spec.name, spec.datatype, rule, signature.batched, hidden)
            self.checks[spec.name] = check
            if check.constraint is not None:
                self.constrained[spec.name] = (check, check.constraint)


class Rules:
    """The rules of one endpoint, whose versions may differ in their signatures. `nulls` is what stands for a JSON null,
    by input, None where nulls are refused everywhere: the decoders take it."""

    __slots__ = ("_coerces", "_ignores", "_plan", "_plans", "_redaction", "_rules", "_signature", "nulls")

    def __init__(self, rules: SchemaRules, signature: Signature, redact: Sequence[str] = ()) -> None:
        self._rules: Final = rules
        self._redaction: Final = Redaction(redact)
        self._ignores: Final = rules.unknown_inputs == "ignore"
        self._coerces: Final = rules.coerce
        self.nulls: Final[dict[str, Scalar] | None] = null_values(rules) or None
        self._plans: dict[Signature, Plan] = {}
        self._signature = signature
        self._plan = self._plan_of(signature)

    def misfit(self, signature: Signature) -> str:
        """Why these rules cannot be kept with a version of this signature; "" where they can."""
        return self._plan_of(signature).misfit

    def check(self, call: InferenceCall, signature: Signature) -> InferenceCall:
        """The call as the model is to see it: without unknown inputs, and converted, where the rules say so.

        Raises SchemaMismatch, naming input, row, what was found and what was expected; NotReady where the rules do not
        fit this version of the model.
        """
        if signature is not self._signature:
            self._plan = self._plan_of(signature)
            self._signature = signature
        plan = self._plan
        if plan.misfit:
            raise NotReady(f'the rules of endpoint "{call.model}" do not fit its model: {plan.misfit}')
        checks = plan.checks
        fits = len(call.inputs) == len(checks)
        for tensor in call.inputs:
            known = checks.get(tensor.name)
            if known is None or known.datatype != tensor.datatype:
                fits = False
                break
        if not fits:
            call = self._fit(call, signature, checks)
        constrained = plan.constrained
        if constrained:
            for tensor in call.inputs:
                asked = constrained.get(tensor.name)
                if asked is not None:
                    asked[0].check(tensor, asked[1])
        return call

    def _plan_of(self, signature: Signature) -> Plan:
        plan = self._plans.get(signature)
        if plan is None:
            if len(self._plans) >= MAX_SIGNATURES:
                self._plans.clear()
            plan = self._plans[signature] = Plan(self._rules, signature, self._redaction)
        return plan

    def _fit(self, call: InferenceCall, signature: Signature, checks: dict[str, InputCheck]) -> InferenceCall:
        """The call without what is to be ignored, and with converted tensors. Raises SchemaMismatch where it does not
        fit the signature even so."""
        inputs: list[Tensor] = []
        for tensor in call.inputs:
            known = checks.get(tensor.name)
            if known is None:
                if self._ignores:
                    continue
            elif known.datatype != tensor.datatype and self._coerces:
                tensor = _coerce(tensor, known)
            inputs.append(tensor)
        fitted = InferenceCall(
            call.model,
            call.version,
            call.id,
            tuple(inputs),
            call.outputs,
            call.parameters,
            call.priority,
            call.timeout_ns,
        )
        check_call(fitted, signature, False)
        return fitted


def _coerce(tensor: Tensor, known: InputCheck) -> Tensor:
    try:
        converted, place = coerce(tensor, known.datatype)
    except HyperionError as error:
        raise SchemaMismatch(f'input "{tensor.name}": {error.message}') from None
    if place >= 0:
        raise known.changes(tensor, place)
    return converted
