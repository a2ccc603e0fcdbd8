"""Attempts to get more rights, and to take the sandbox off."""

import ctypes
import os
import resource
import subprocess
from collections.abc import Callable

from .files import Around, Stopped, first_bytes
from .others import checked, libc


def call(number: int, *arguments: object) -> str:
    return checked(libc.syscall(number, *arguments), f"system call {number}")


def become_root(around: Around) -> str:
    os.setresuid(0, 0, 0)
    return f"user {os.getuid()}"


def become_nobody(around: Around) -> str:
    os.setresuid(65534, 65534, 65534)
    return f"user {os.getuid()}"


def regain(around: Around) -> str:
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    return call(126, head, (ctypes.c_uint32 * 6)(*(0xFFFFFFFF,) * 2, 0, *(0x1FF,) * 2, 0))


def show_itself(around: Around) -> str:
    return checked(libc.prctl(4, 1, 0, 0, 0), "prctl(PR_SET_DUMPABLE)")


def outlive(around: Around) -> str:
    return checked(libc.prctl(1, 0, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def dump_core(around: Around) -> str:
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))
    return "core dumps are on"


def raise_limits(around: Around) -> str:
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "memory is not limited"


def restrict_anew(around: Around) -> str:
    attributes = (ctypes.c_uint64 * 1)(1 << 2)
    ruleset = libc.syscall(444, attributes, 8, 0)
    checked(ruleset, "landlock_create_ruleset")
    root = os.open("/usr", os.O_PATH)
    rule = ctypes.create_string_buffer((1 << 2).to_bytes(8, "little") + root.to_bytes(4, "little"), 12)
    checked(libc.syscall(445, ruleset, 1, rule, 0), "landlock_add_rule")
    return first_bytes(around["secret"])


def fork(around: Around) -> str:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return f"child {pid}"


def run_shell(around: Around) -> str:
    return subprocess.run(["/bin/sh", "-c", "id"], capture_output=True, text=True, check=True).stdout


def spawn(around: Around) -> str:
    return f"child {os.posix_spawn('/bin/true', ['true'], {})}"


def replace_itself(around: Around) -> str:
    os.execv("/bin/true", ["true"])


def run_from_memory(around: Around) -> str:
    descriptor = os.memfd_create("program")
    with open("/bin/true", "rb") as program:
        os.write(descriptor, program.read())
    os.execve(descriptor, ["true"], {})


def run_setuid(around: Around) -> str:
    done = subprocess.run(["/bin/su", "-c", "id"], env={"LD_PRELOAD": "/tmp/evil.so"}, capture_output=True, check=False)
    return f"su ended with {done.returncode}"


def new_namespace(around: Around) -> str:
    # CLONE_NEWUSER | SIGCHLD, as a raw system call: the C library's own checks do not help.
    pid = libc.syscall(56, 0x10000000 | 17, None, None, None, None)
    if pid == 0:
        os._exit(0)
    return checked(pid, "clone")


def use_x32(around: Around) -> str:
    return call(0x40000000 | 39)


def change_personality(around: Around) -> str:
    return call(135, 0x0040000)


def leave_group(around: Around) -> str:
    before = os.getpgrp()
    libc.setsid()
    os.setpgid(0, 0)
    if os.getpgrp() == before and os.getsid(0) != os.getpid():
        raise Stopped("still in its group")
    os.setsid()
    return f"group {os.getpgrp()} of session {os.getsid(0)}"


ATTEMPTS: dict[str, Callable[[Around], str]] = {
    "setuid to root": become_root,
    "setuid to nobody": become_nobody,
    "regain capabilities": regain,
    "let itself be looked into": show_itself,
    "outlive the supervisor": outlive,
    "core dumps": dump_core,
    "raise its limits": raise_limits,
    "a new Landlock ruleset": restrict_anew,
    "fork": fork,
    "a shell": run_shell,
    "spawn": spawn,
    "exec": replace_itself,
    "exec from memory": run_from_memory,
    "a setuid program with LD_PRELOAD": run_setuid,
    "a user namespace by clone": new_namespace,
    "leave its session": leave_group,
    "x32 calls": use_x32,
    "personality": change_personality,
    "unshare": lambda around: call(272, 0x10000000),
    "setns": lambda around: call(308, os.open("/proc/self/ns/net", os.O_RDONLY), 0),
    "mount": lambda around: call(165, b"tmpfs", os.environ["TMPDIR"].encode(), b"tmpfs", 0, None),
    "unmount": lambda around: call(166, b"/dev/shm", 2),
    "chroot": lambda around: call(161, b"/usr"),
    "pivot_root": lambda around: call(155, b"/", b"/"),
    "keys of the kernel": lambda around: call(250, 0, -3, 1),
    "add a key": lambda around: call(248, b"user", b"hostile", b"x", 1, -3),
    "eBPF": lambda around: call(321, 5, ctypes.create_string_buffer(128), 128),
    "performance counters": lambda around: call(298, ctypes.create_string_buffer(128), 0, -1, -1, 0),
    "userfaultfd": lambda around: call(323, 0),
    "a kernel module": lambda around: call(313, 0, b"", 0),
    "kexec": lambda around: call(246, 0, 0, None, 0),
    "swap": lambda around: call(168, b"/dev/vda"),
    "the clock": lambda around: call(227, 0, (ctypes.c_long * 2)(0, 0)),
    "the host's name": lambda around: call(170, b"hostile", 7),
    "ports of the machine": lambda around: call(172, 3),
    "System V shared memory": lambda around: call(29, 0, 4096, 0o1600),
    "a message queue": lambda around: call(240, b"hostile", 0o102, 0o600, None),
}
