"""A small assembler for seccomp filters (classic BPF), and how one is put on.

Called by `enter`. A filter is a list of rules; a call that no rule names is allowed. The kernel remembers which calls
are allowed whatever their arguments (Linux 5.11), so that those cost next to nothing.
"""

import errno
import struct
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from hyperion.runner.sandbox.calls import AUDIT_ARCH, X86_64, numbers_of
from hyperion.runner.sandbox.kernel import address_of, buffer_of, call, control

_LOAD, _AND, _JUMP, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
DENY: Final = _ERRNO | errno.EPERM
ABSENT: Final = _ERRNO | errno.ENOSYS  # the C library then uses the older call
PRETEND: Final = _ERRNO  # does nothing, and says that it worked
_SET_FILTER, _ALL_THREADS, _NO_MITIGATION = 1, 1 << 0, 1 << 2
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_MOST_VALUES = 64

Instruction = tuple[int, int, int, int]


class When(Struct, frozen=True):
    """A condition on one argument (from 0), of which the lower 32 bits count, or the upper ones. It holds where the
    argument, after `mask`, is (`among`) or is not (`beside`) one of the values; or has any (`bits`), or none
    (`no_bits`), of the bits."""

    argument: int
    test: str
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    upper: bool = False


class Rule(Struct, frozen=True):
    """What becomes of these calls: always, or where any of the conditions holds."""

    names: tuple[str, ...]
    action: int = DENY
    when: tuple[When, ...] = ()


def assemble(rules: Iterable[Rule], machine: str) -> bytes:
    """The filter as the kernel takes it: 8 bytes for each instruction. Calls of another architecture (32 bits, x32)
    are denied."""
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, DENY),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == X86_64:
        program += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, DENY)]
    for rule in rules:
        for number in numbers_of(rule.names, machine):
            body = _body(rule)
            program += [(_EQUAL, 0, len(body), number), *body]
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _body(rule: Rule) -> list[Instruction]:
    if not rule.when:
        return [(_RETURN, 0, 0, rule.action)]
    body: list[Instruction] = []
    for condition in rule.when:
        body += _test(condition, rule.action)
    return [*body, (_RETURN, 0, 0, _ALLOW)]


def _test(when: When, action: int) -> list[Instruction]:
    """Returns `action` where the condition holds, and else goes on behind."""
    assert 1 <= len(when.values) <= _MOST_VALUES, "jumps reach 255 instructions"
    load = [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * when.argument + 4 * when.upper), (_AND, 0, 0, when.mask)]
    if when.test == "bits":
        return [*load, (_BITS, 0, 1, when.values[0]), (_RETURN, 0, 0, action)]
    if when.test == "no_bits":
        return [*load, (_BITS, 1, 0, when.values[0]), (_RETURN, 0, 0, action)]
    left = range(len(when.values), 0, -1)
    looks = [(_EQUAL, more, 0, value & 0xFFFFFFFF) for more, value in zip(left, when.values, strict=True)]
    if when.test == "among":
        return [*load, *looks, (_JUMP, 0, 0, 1), (_RETURN, 0, 0, action)]
    assert when.test == "beside", when.test
    return [*load, *looks, (_RETURN, 0, 0, action)]


def install(program: bytes, machine: str) -> None:
    """Put the filter on all threads of this process, for ever. Needs no_new_privs. Raises OSError."""
    instructions = buffer_of(program)
    head = buffer_of(struct.pack("@HP", len(program) // 8, address_of(instructions)))
    for flags in (_ALL_THREADS | _NO_MITIGATION, _ALL_THREADS):
        try:
            if call(_SECCOMP[machine], _SET_FILTER, flags, head) == 0:
                return
            raise OSError(errno.EBUSY, "a thread has a filter of its own")
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
    control(_PR_SET_SECCOMP, _MODE_FILTER, address_of(head))
