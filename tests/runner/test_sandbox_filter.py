"""What the filter decides, on each architecture that it knows."""

from typing import Any

import pytest

from hyperion.runner.sandbox.calls import AARCH64, AUDIT_ARCH, X86_64, numbers_of
from hyperion.runner.sandbox.filter import ABSENT, DENY, PRETEND, assemble
from hyperion.runner.sandbox.rules import choose_rules
from tests.runner.bpf import decide

ALLOW = 0x7FFF0000
PID = 4711
THREAD, NEW_USER, CHILD = 0x10000 | 0x100, 0x10000000, 17

# call, arguments, what is decided with neither network nor processes, what with both
TABLE: list[tuple[str, tuple[int, ...], int, int]] = [
    ("ptrace", (), DENY, DENY),
    ("mount", (), DENY, DENY),
    ("io_uring_setup", (), DENY, DENY),
    ("keyctl", (), DENY, DENY),
    ("setsid", (), DENY, DENY),
    ("fchmodat", (), PRETEND, PRETEND),
    ("clone3", (), ABSENT, ABSENT),
    ("clone", (THREAD,), ALLOW, ALLOW),
    ("clone", (CHILD,), DENY, ALLOW),
    ("clone", (CHILD | NEW_USER,), DENY, DENY),
    ("clone", (THREAD | NEW_USER,), DENY, DENY),
    ("execve", (), DENY, ALLOW),
    ("kill", (PID,), ALLOW, ALLOW),
    ("kill", (0,), ALLOW, ALLOW),
    ("kill", (1,), DENY, ALLOW),
    ("kill", (-1,), DENY, ALLOW),
    ("tgkill", (PID, PID + 1), ALLOW, ALLOW),
    ("tgkill", (1, 1), DENY, ALLOW),
    ("pidfd_send_signal", (), DENY, ALLOW),
    ("socket", (1, 1), DENY, DENY),
    ("socket", (2, 1), DENY, ALLOW),
    ("socket", (10, 2), DENY, ALLOW),
    ("socket", (16, 3), DENY, DENY),
    ("socketpair", (1, 1), ALLOW, ALLOW),
    ("socketpair", (1, 1 | 0o2000000), ALLOW, ALLOW),
    ("socketpair", (1, 5), ALLOW, ALLOW),
    ("socketpair", (1, 2), DENY, DENY),
    ("connect", (), DENY, ALLOW),
    ("bind", (), DENY, ALLOW),
    ("sendto", (3, 1, 1, 0, 0, 0), ALLOW, ALLOW),
    ("sendto", (3, 1, 1, 0, 0x7F00, 16), DENY, ALLOW),
    ("sendto", (3, 1, 1, 0, 0x7F00000000, 16), DENY, ALLOW),
    ("prctl", (15,), ALLOW, ALLOW),
    ("prctl", (4, 1), DENY, DENY),
    ("prctl", (1, 0), DENY, DENY),
    ("fcntl", (3, 1), ALLOW, ALLOW),
    ("fcntl", (3, 8, 1), DENY, DENY),
    ("ioctl", (3, 0x5401), ALLOW, ALLOW),
    ("ioctl", (3, 0x5412), DENY, DENY),
    ("ioctl", (3, 0xFFFFFFFF00005412), DENY, DENY),
    ("prlimit64", (0,), ALLOW, ALLOW),
    ("prlimit64", (PID,), ALLOW, ALLOW),
    ("prlimit64", (1,), DENY, DENY),
    ("setpriority", (0, 0, 5), ALLOW, ALLOW),
    ("setpriority", (1, 0, 5), ALLOW, ALLOW),
    ("setpriority", (2, 0, 19), DENY, DENY),
    ("setpriority", (0, 1, 19), DENY, DENY),
    ("sched_setaffinity", (0,), ALLOW, ALLOW),
    ("sched_setaffinity", (1,), PRETEND, PRETEND),
    ("personality", (0xFFFFFFFF,), ALLOW, ALLOW),
    ("personality", (0x0040000,), DENY, DENY),
]


@pytest.mark.parametrize("machine", [X86_64, AARCH64])
@pytest.mark.parametrize(("name", "arguments", "closed", "opened"), TABLE)
def test_a_call_is_decided_as_its_rule_says(
    machine: str, name: str, arguments: tuple[int, ...], closed: int, opened: int
) -> None:
    for options, expected in (((False, False), closed), ((True, True), opened)):
        program = assemble(choose_rules(PID, *options), machine)
        for number in numbers_of((name,), machine):
            assert decide(program, AUDIT_ARCH[machine], number, arguments) == expected


@pytest.mark.parametrize(("network", "processes"), [(False, True), (True, False)])
def test_network_and_processes_are_asked_for_apart(network: bool, processes: bool) -> None:
    program = assemble(choose_rules(PID, network, processes), X86_64)
    ask: Any = lambda name, *arguments: decide(  # noqa: E731
        program, AUDIT_ARCH[X86_64], numbers_of((name,), X86_64)[0], arguments
    )
    assert (ask("socket", 2, 1) == ALLOW) is network
    assert (ask("clone", CHILD) == ALLOW) is processes


@pytest.mark.parametrize("machine", [X86_64, AARCH64])
def test_what_no_rule_names_is_allowed_and_other_architectures_are_not(machine: str) -> None:
    program = assemble(choose_rules(PID, False, False), machine)
    assert decide(program, AUDIT_ARCH[machine], 1_000) == ALLOW
    assert decide(program, 0x40000003, 1_000) == DENY  # i386


def test_calls_of_x32_are_denied() -> None:
    program = assemble(choose_rules(PID, False, False), X86_64)
    assert decide(program, AUDIT_ARCH[X86_64], 0x40000000 | 39) == DENY


@pytest.mark.parametrize("machine", [X86_64, AARCH64])
def test_the_filter_is_one_that_the_kernel_takes(machine: str) -> None:
    assert len(assemble(choose_rules(PID, False, False), machine)) // 8 < 4096
