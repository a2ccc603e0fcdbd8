"""Real runner processes of the obedient model, and the FIFOs by which tests hold and release it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from hyperion.schema.config import RunnerConfig
from hyperion.schema.model import ModelOptions, ModelSpec, Signature, TensorSpec
from hyperion.schema.snapshot import Replica, ServedVersion

PROGRAM = """
import ctypes, sys, msgspec
ctypes.CDLL(None).prctl(1, 9)
from hyperion.runner.process import run
from hyperion.schema.config import RunnerConfig
sys.exit(run(msgspec.json.decode(sys.argv[1], type=RunnerConfig), lambda line: print(line, flush=True)))
"""
DIGEST = "sha256:" + "ab" * 32
SIGNATURE = Signature(
    (TensorSpec("command", "BYTES", (-1, 1)),),
    (TensorSpec("said", "BYTES", (-1, 1)), TensorSpec("rows", "INT32", (-1, 1)), TensorSpec("turn", "INT64", (-1, 1))),
    streams=True,
)


def config_of(directory: Path, index: int = 0, options: ModelOptions | None = None) -> RunnerConfig:
    """One replica of the obedient model whose socket and FIFOs lie in `directory`."""
    options = msgspec.structs.replace(options or ModelOptions(), env={"OBEDIENT_DIR": str(directory)}, threads=1)
    path = str(Path(__file__).parent / "obedient")
    name = f"obedient@1.g1.{index}"
    return RunnerConfig(
        name,
        str(directory / f"r{index}.sock"),
        ModelSpec("obedient", "1", "python", path, DIGEST, options),
        sandbox="off",  # it waits at FIFOs that the test has made
    )


def command_of(config: RunnerConfig) -> list[str]:
    return [sys.executable, "-c", PROGRAM, msgspec.json.encode(config).decode()]


def served_by(configs: list[RunnerConfig], version: str = "1", generation: int = 1) -> ServedVersion:
    """The version that these replicas make."""
    replicas = tuple(Replica(config.replica, config.socket) for config in configs)
    return ServedVersion(version, DIGEST, generation, "python", SIGNATURE, configs[0].spec.options, replicas)


class Fifo:
    """Where the model waits for the test. Both sides are there once `reached` returns."""

    def __init__(self, directory: Path, name: str) -> None:
        self.command = f"hold:{name}"
        self.name = name
        self._path = directory / name
        self._file: BinaryIO | None = None
        os.mkfifo(self._path)

    async def reached(self) -> None:
        """Until the model waits here."""
        self._file = await asyncio.to_thread(self._path.open, "wb")

    def release(self) -> None:
        """Lets the model go on."""
        assert self._file is not None
        self._file.close()

    async def release_until(self, done: asyncio.Future[Any]) -> None:
        """Lets every model go on that waits here now or later, until something is done."""
        self.release()
        while not done.done():
            with contextlib.suppress(OSError):  # nobody waits here
                os.close(os.open(self._path, os.O_WRONLY | os.O_NONBLOCK))
            await asyncio.sleep(0.002)

    async def said(self) -> bytes:
        """What the model writes here, once it does."""
        return await asyncio.to_thread(self._path.read_bytes)


def start_runner(config: RunnerConfig) -> subprocess.Popen[str]:
    """A runner that is ready."""
    process = subprocess.Popen(command_of(config), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "READY=1\n", line
    return process


def stop_runner(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


class KeptRunner:
    """A replica that is started again whenever it ends, as the supervisor would."""

    def __init__(self, config: RunnerConfig) -> None:
        self.config = config
        self.exits: list[int] = []
        self.stderr = b""
        self._process: asyncio.subprocess.Process | None = None
        self.started = asyncio.Event()

    async def keep(self) -> None:
        while True:
            command = command_of(self.config)
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
            self.started.set()
            _, stderr = await self._process.communicate()
            self.stderr += stderr
            assert self._process.returncode is not None
            self.exits.append(self._process.returncode)

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)


@asynccontextmanager
async def kept_runners(*configs: RunnerConfig) -> AsyncIterator[list[KeptRunner]]:
    """Replicas that come back when they die, until the block ends."""
    runners = [KeptRunner(config) for config in configs]
    keepers = [asyncio.create_task(runner.keep()) for runner in runners]
    try:
        for runner in runners:
            await runner.started.wait()
        yield runners
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for runner in runners:
            with contextlib.suppress(ProcessLookupError):
                runner.kill()
