"""Numbers of another datatype than the model takes, as those that it takes, where none of them changes.

Called by `gateway/front/rules` where an endpoint says `coerce: true`. Whole numbers become any datatype that holds each
of them; floats become whole numbers where they are whole, and wider or narrower floats where they stay the same. One
exception: FP64, which most clients send without asking, becomes FP32 by rounding to the nearest, as numbers in JSON do,
unless that gives an infinity, or a subnormal number or zero for something else. Truth values and texts are never
converted: "12" is no number.
"""

from typing import TYPE_CHECKING, Any

from hyperion.policy.constraints import INTEGERS, LARGEST
from hyperion.schema.call import Tensor
from hyperion.schema.errors import SchemaMismatch
from hyperion.wire.tensor import DATATYPES, from_numpy, to_numpy

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LEAST_NORMAL_FP32 = 2.0**-126


def coerce(tensor: Tensor, datatype: str) -> tuple[Tensor, int]:
    """The tensor as `datatype`, and -1; or the tensor as it is, and the place of the first element that would change.

    Raises SchemaMismatch where the datatypes have nothing in common.
    """
    source = tensor.datatype
    if not (_is_number(source) and _is_number(datatype)):
        raise SchemaMismatch(f"{source} cannot become {datatype}; only numbers are converted")
    import numpy as np

    array = to_numpy(tensor)
    with np.errstate(all="ignore"):
        right, converted = _convert(array, source, datatype)
    if not right.all():
        return tensor, int(right.argmin())
    # BF16 is FP32 to numpy: whatever is left to round was found to be the same.
    return from_numpy(tensor.name, converted.reshape(array.shape), datatype), -1


def _convert(array: "Array", source: str, datatype: str) -> "tuple[Array, Array]":
    """Which elements (row-major) stay the same, and all of them as the datatype; BF16 as FP32."""
    import numpy as np

    flat = array.ravel()
    if datatype in INTEGERS:
        lowest, highest = INTEGERS[datatype]
        if source in LARGEST:
            flat = flat.astype(np.float64)
            # The bound above, a power of two, is exact where the largest integer is not.
            right = (flat >= float(lowest)) & (flat < float(highest + 1)) & (flat == np.trunc(flat))
            return right, np.where(right, flat, 0).astype(DATATYPES[datatype].dtype)
        least, most = INTEGERS[source]
        right = np.ones(flat.shape, bool)
        if lowest > least:
            right &= flat >= lowest
        if highest < most:
            right &= flat <= highest
        return right, flat.astype(DATATYPES[datatype].dtype)
    narrow = flat.astype(np.float32 if datatype == "BF16" else DATATYPES[datatype].dtype)
    if datatype == "BF16":
        narrow = to_numpy(from_numpy("", narrow, "BF16"))
    if source in LARGEST:
        right = (narrow == flat) | np.isnan(flat)
        if source == "FP64" and datatype == "FP32":
            right |= np.isfinite(narrow) & (np.abs(narrow) >= LEAST_NORMAL_FP32)
        return right, narrow
    return _is_exact(flat, narrow), narrow


def _is_exact(whole: "Array", floats: "Array") -> "Array":
    """Which whole numbers are the same as the floats that they became, compared as whole numbers: as floats, those
    that were rounded would be equal to themselves."""
    import numpy as np

    info = np.iinfo(whole.dtype)
    wide = floats.astype(np.float64)
    inside = (wide >= float(info.min)) & (wide < float(int(info.max) + 1))
    back = np.where(inside, wide, 0.0).astype(whole.dtype)
    exact: Array = inside & (back == whole)
    return exact


def _is_number(datatype: str) -> bool:
    return datatype in INTEGERS or datatype in LARGEST
