"""Attempts on files: to read what is secret, to write what is not the model's."""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Around = dict[str, Any]


class Stopped(Exception):
    """The attempt returned, and nothing came of it."""


def first_bytes(path: str | Path) -> str:
    with open(path, "rb") as file:
        return repr(file.read(8))


def scratch() -> Path:
    return Path(os.environ["TMPDIR"])


def read_through_link(around: Around) -> str:
    link = scratch() / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(around["secret"])
    return first_bytes(link)


def read_through_hard_link(around: Around) -> str:
    link = scratch() / "hard"
    link.unlink(missing_ok=True)
    os.link(around["secret"], link)
    return first_bytes(link)


def read_through_descriptor(around: Around) -> str:
    descriptor = os.open(around["secret"], os.O_PATH)
    return first_bytes(f"/proc/self/fd/{descriptor}")


def write_own_code(around: Around) -> str:
    with open(f"{around['own']}/model.py", "ab") as file:
        return f"opened {file.name} for writing"


def write_library(around: Around) -> str:
    path = Path(os.__file__).parent / "hostile_test.py"
    path.write_text("")
    path.unlink()
    return f"wrote {path}"


def write_elsewhere(around: Around) -> str:
    path = Path(around["outside"]) / "hostile"
    path.write_text("here")
    return f"wrote {path}"


def append_to_secret(around: Around) -> str:
    with open(around["secret"], "ab") as file:
        return f"opened {file.name}"


def truncate_secret(around: Around) -> str:
    os.truncate(around["victim"], 0)
    return "truncated"


def rename_secret(around: Around) -> str:
    os.rename(around["victim"], scratch() / "taken")
    return "moved"


def delete_secret(around: Around) -> str:
    os.unlink(around["victim"])
    return "deleted"


def change_mode(around: Around) -> str:
    before = os.stat(around["victim"]).st_mode
    os.chmod(around["victim"], 0o777)
    return changed(before, os.stat(around["victim"]).st_mode)


def change_times(around: Around) -> str:
    before = os.stat(around["victim"]).st_mtime_ns
    os.utime(around["victim"], (1, 1))
    return changed(before, os.stat(around["victim"]).st_mtime_ns)


def change_owner(around: Around) -> str:
    os.chown(around["victim"], 65534, 65534)
    return "given away"


def change_attributes(around: Around) -> str:
    os.setxattr(around["victim"], "user.hostile", b"1")
    return "set"


def changed(before: int, after: int) -> str:
    if before == after:
        raise Stopped("the call did nothing")
    return f"{before} became {after}"


def read_by_handle(around: Around) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    handle = ctypes.create_string_buffer((128).to_bytes(4, sys.byteorder) + bytes(200))
    mount = ctypes.c_int()
    if libc.name_to_handle_at(-100, around["secret"].encode(), handle, ctypes.byref(mount), 0) < 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    return "got a handle"


def make_device(around: Around) -> str:
    path = scratch() / "disk"
    os.mknod(path, 0o60600, os.makedev(254, 0))
    return first_bytes(path)


def see_metadata(around: Around) -> str:
    return f"{os.stat(around['secret']).st_size} bytes"


def leave_scratch(around: Around) -> str:
    return first_bytes(scratch() / ".." / ".." / "hyperion.db") + around["home"]


ATTEMPTS: dict[str, Callable[[Around], str]] = {
    "read /etc/shadow": lambda around: first_bytes("/etc/shadow"),
    "read another model": lambda around: first_bytes(f"{around['neighbour']}/model.py"),
    "read the administrator's token": lambda around: first_bytes(f"{around['home']}/admin-token"),
    "read the ledger's key": lambda around: first_bytes(f"{around['home']}/ledger.key"),
    "read the database": lambda around: first_bytes(f"{around['home']}/hyperion.db"),
    "list the home": lambda around: str(os.listdir(around["home"])),
    "list the models": lambda around: str(os.listdir(Path(around["own"]).parent)),
    "list the user's home": lambda around: str(os.listdir("/root" if os.getuid() == 0 else around["outside"])),
    "read through a symbolic link": read_through_link,
    "read through a hard link": read_through_hard_link,
    "read through /proc/self/root": lambda around: first_bytes(f"/proc/self/root{around['secret']}"),
    "read through a path descriptor": read_through_descriptor,
    "read by file handle": read_by_handle,
    "read by leaving TMPDIR": leave_scratch,
    "read the disk": lambda around: first_bytes("/dev/vda" if os.path.exists("/dev/vda") else "/dev/sda"),
    "read the machine's memory": lambda around: first_bytes("/dev/mem" if os.path.exists("/dev/mem") else "/dev/kmsg"),
    "read shared memory of others": lambda around: first_bytes(around["shared"]),
    "make a device": make_device,
    "write its own code": write_own_code,
    "write a library": write_library,
    "write elsewhere": write_elsewhere,
    "append to a secret": append_to_secret,
    "truncate": truncate_secret,
    "move a file here": rename_secret,
    "delete a file": delete_secret,
    "change a mode": change_mode,
    "change times": change_times,
    "change an owner": change_owner,
    "change attributes": change_attributes,
    "see names and sizes": see_metadata,
}
