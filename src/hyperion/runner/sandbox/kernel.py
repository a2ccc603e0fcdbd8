"""Calls to the kernel that the standard library has no function for. Called by the layers of the sandbox."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call: integers as they are, bytes and buffers by their address. Returns what the kernel returns;
    raises OSError."""
    result: int = _libc.syscall(ctypes.c_long(number), *(_pass(argument) for argument in arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def control(option: int, *arguments: int) -> int:
    """Call prctl(2) for this process. Raises OSError."""
    padded = (*arguments, 0, 0, 0, 0)[:4]
    result: int = _libc.prctl(option, *(ctypes.c_ulong(argument) for argument in padded))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def address_of(data: ctypes.Array[ctypes.c_char]) -> int:
    """Where a buffer lies, for structures that point to another."""
    return ctypes.addressof(data)


def buffer_of(data: bytes) -> ctypes.Array[ctypes.c_char]:
    """A copy of `data` at an address that stays the same for as long as it is held."""
    return ctypes.create_string_buffer(data, len(data))


def _pass(argument: object) -> object:
    return ctypes.c_long(argument) if isinstance(argument, int) else argument
