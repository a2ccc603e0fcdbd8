"""Which system calls a model has no use for, and which depend on what it asked for.

Called by `enter`. It names what is denied, not what is allowed: nobody can list what every numerical library calls,
and a model that worked must go on working. What is denied fails with EPERM, which the log explains (`hint`).
"""

from hyperion.runner.sandbox.filter import ABSENT, DENY, PRETEND, Rule, When

_NEW_NAMESPACES, _THREAD = 0x7E020000, 0x00010000
_INET, _INET6, _UNIX = 2, 10, 1
_STREAM, _SEQPACKET, _TYPE_MASK = 1, 5, 0xF
_SET_OWNER, _SET_OWNER_EX = 8, 15
_PUSH_INPUT, _CONSOLE, _SET_OWNER_IOCTL, _SET_GROUP_IOCTL = 0x5412, 0x541C, 0x8901, 0x8902
_DUMPABLE, _PARENT_DEATH = 4, 1

# Other processes' memory and descriptors, mounts, kernel code, clocks, keys, users, and what bypasses these rules.
_NEVER = (
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_mrelease", "kcmp", "pidfd_getfd"),
    *("mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig"),
    *("fsmount", "fspick", "mount_setattr", "statmount", "listmount", "unshare", "setns"),
    *("open_by_handle_at", "name_to_handle_at", "fanotify_init", "lookup_dcookie", "file_setattr"),
    *("kexec_load", "kexec_file_load", "bpf", "perf_event_open", "userfaultfd", "create_module", "init_module"),
    *("finit_module", "delete_module", "reboot", "swapon", "swapoff", "iopl", "ioperm", "modify_ldt", "syslog"),
    *("add_key", "request_key", "keyctl", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname", "acct"),
    *("quotactl", "quotactl_fd", "nfsservctl", "uselib", "ustat", "sysfs", "_sysctl", "vhangup"),
    *("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid"),
    *("capset", "setsid", "setpgid", "migrate_pages", "move_pages"),
    *("shmget", "shmat", "shmctl", "msgget", "msgsnd", "msgrcv", "msgctl", "semget", "semop", "semtimedop", "semctl"),
    *("mq_open", "mq_unlink", "chown", "fchown", "lchown", "fchownat"),
    *("setxattr", "lsetxattr", "fsetxattr", "setxattrat"),
    *("removexattr", "lremovexattr", "fremovexattr", "removexattrat"),
)
# Landlock does not look at these, and a filter cannot see of which file they speak. Copying files sets modes
# (`shutil.copy`), so an error would break models that only use their own temporary files. Setting times stays: programs
# learn by it whether a file is there (`Path.touch`).
_PRETENDED = ("chmod", "fchmod", "fchmodat", "fchmodat2")


def choose_rules(pid: int, network: bool, processes: bool) -> list[Rule]:
    """The rules for process `pid`, which leads its process group, by what its model may do."""
    own = (0, pid)
    rules = [
        Rule(_NEVER),
        Rule(_PRETENDED, PRETEND),
        Rule(("clone3",), ABSENT),  # its flags lie in memory, where no filter can look
        Rule(("personality",), DENY, (When(0, "beside", (0xFFFFFFFF,)),)),
        Rule(("prctl",), DENY, (When(0, "among", (_DUMPABLE, _PARENT_DEATH)),)),
        Rule(("fcntl",), DENY, (When(1, "among", (_SET_OWNER, _SET_OWNER_EX)),)),
        Rule(
            ("ioctl",),
            DENY,
            (When(1, "among", (_PUSH_INPUT, _CONSOLE, _SET_OWNER_IOCTL, _SET_GROUP_IOCTL)),),
        ),
        Rule(("prlimit64", "sched_setscheduler", "sched_setparam", "sched_setattr"), DENY, (When(0, "beside", own),)),
        # Libraries pin their own threads; a filter cannot tell those from others.
        Rule(("sched_setaffinity",), PRETEND, (When(0, "beside", own),)),
        Rule(("setpriority",), DENY, (When(1, "beside", (0,)), When(0, "among", (2,)))),
        Rule(("ioprio_set",), DENY, (When(1, "beside", (0,)), When(0, "among", (3,)))),
    ]
    # What is called for every request comes first: the kernel tries the rules one by one.
    return _for_sockets(network) + _for_processes(pid, processes) + rules


def _for_sockets(network: bool) -> list[Rule]:
    """Without sockets of its own a model reaches no other process, whatever path its socket has: the only ones are the
    listening one, which was made before, and pairs."""
    pairs = When(1, "beside", (_STREAM, _SEQPACKET), _TYPE_MASK)  # a datagram could be sent to any path
    rules = [Rule(("socketpair",), DENY, (When(0, "beside", (_UNIX,)), pairs))]
    if network:
        return [*rules, Rule(("socket",), DENY, (When(0, "beside", (_INET, _INET6)),))]
    addressed = (When(4, "bits", (0xFFFFFFFF,)), When(4, "bits", (0xFFFFFFFF,), upper=True))
    return [Rule(("sendto",), DENY, addressed), Rule(("socket", "connect", "bind")), *rules]


def _for_processes(pid: int, processes: bool) -> list[Rule]:
    namespaces = When(0, "bits", (_NEW_NAMESPACES,))
    if processes:
        return [Rule(("clone",), DENY, (namespaces,))]
    return [
        Rule(("clone",), DENY, (namespaces, When(0, "no_bits", (_THREAD,)))),
        Rule(("fork", "vfork", "execve", "execveat", "tkill", "pidfd_send_signal")),
        Rule(("kill",), DENY, (When(0, "beside", (0, pid)),)),
        Rule(("tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"), DENY, (When(0, "beside", (pid,)),)),
    ]
