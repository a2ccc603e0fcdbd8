"""A supervisor in a process of its own, for tests that kill it: `python host.py RUN_DIR [json of first children]`."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from hyperion.fleet.home import listen_unix
from hyperion.fleet.messages import ChildSpec
from hyperion.fleet.output import LogWriter
from hyperion.fleet.spawn import spawn
from hyperion.fleet.supervisor import Supervisor


def main(run_dir: Path, specs: list[ChildSpec]) -> None:
    listener = listen_unix(run_dir / "supervisor.sock")
    first = [(spec, spawn(spec, os.environ)) for spec in specs]
    writer = LogWriter(2)

    async def supervise() -> None:
        await Supervisor(os.environ, writer, "text", (60.0, 60.0, 60.0)).run(listener, first)

    asyncio.run(supervise())
    writer.close(1.0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2] if len(sys.argv) > 2 else "[]", type=list[ChildSpec]))
