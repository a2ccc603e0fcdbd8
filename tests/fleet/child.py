"""A tiny child for the supervisor's tests: does what its arguments say, in order."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

from hyperion.fleet.lifeline import open_notify, tie_to_parent


def stirs_for_ever(notify: Callable[[str], None]) -> None:
    while not threading.Event().wait(0.02):
        notify("WATCHDOG=1")


def main(steps: list[str]) -> int:
    tie_to_parent(os.environ)
    notify = open_notify(os.environ)
    for step in steps:
        verb, _, value = step.partition("=")
        if verb == "ready":
            notify("READY=1")
        elif verb == "stirs":
            stirs_for_ever(notify)
        elif verb == "error":
            notify(f"ERROR={value}")
        elif verb == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif verb == "exit":
            return int(value)
        elif verb == "die-once" and not os.path.exists(value):
            open(value, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        elif verb == "print":
            print(value, flush=True)
        elif verb == "print-for-ever":
            while True:
                print("garbage " * 20)
        elif verb == "grandchild":
            process = subprocess.Popen(["sleep", "1000"])
            notify(f"STATUS={process.pid}")
        elif verb == "sleep":
            threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
