"""An interpreter of seccomp filters, so that what a filter decides can be asked for any architecture."""

import struct
from collections.abc import Sequence


def decide(program: bytes, arch: int, number: int, arguments: Sequence[int] = ()) -> int:
    """What the filter returns for a call with these arguments (64 bits each, missing ones are 0)."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, arch, 0, *(value & (1 << 64) - 1 for value in padded))
    instructions = [struct.unpack("<HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    register, at = 0, 0
    while True:
        code, true, false, operand = instructions[at]
        at += 1
        if code == 0x20:
            (register,) = struct.unpack_from("<I", data, operand)
        elif code == 0x54:
            register &= operand
        elif code == 0x05:
            at += operand
        elif code == 0x06:
            return operand
        else:
            tests = {0x15: register == operand, 0x35: register >= operand, 0x45: bool(register & operand)}
            at += true if tests[code] else false
