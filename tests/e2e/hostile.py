"""Hostile requests over HTTP and gRPC, the same for the same seed, and a judge of what came back.

`python -m tests.e2e.hostile --count 20000` starts a server of its own; `--url` and `--grpc` name one that runs, whose
gateway's memory is watched where `--pid` says which process it is. Each attack is written down as its number: seed and
number give the same bytes again.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.e2e.hostile_attack import Attack, good_request
from tests.e2e.hostile_bytes import make_attack
from tests.e2e.hostile_grpc import GrpcAttacker

ANSWER_S = 20.0
GOOD_EVERY = 100
CALM_SHARE = 0.25  # of the attacks: by then every cache is full, and memory must not grow any more


class Outcome(NamedTuple):
    """What became of one attack: the statuses of its answers, and what is wrong with them ("" for nothing)."""

    attack: str
    statuses: tuple[str, ...]
    wrong: str = ""


class Report(NamedTuple):
    count: int
    seconds: float
    statuses: dict[str, int]
    kinds: dict[str, int]
    wrongs: list[str]
    calm_kib: int
    end_kib: int


async def read_answers(reader: asyncio.StreamReader, count: int) -> list[tuple[int, bytes]]:
    """So many answers, or as many as come before the connection ends."""
    answers: list[tuple[int, bytes]] = []
    while len(answers) < count:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        status, lower = int(head[9:12]), head.lower()
        if status == 100:
            continue
        body = b""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            if b"transfer-encoding: chunked" in lower:
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    body += await reader.readexactly(size + 2)
                await reader.readexactly(2)
            elif b"content-length: " in lower:
                length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
        answers.append((status, body))
    return answers


def judge(status: int, body: bytes) -> str:
    """What is wrong with an answer: only a model may fail, and nothing of ours may show."""
    if status >= 500 and b" raised " not in body:
        return f"{status} {body[:300]!r}"
    if b"Traceback" in body or b"/hyperion/" in body or b'.py"' in body:
        return f"shows its insides: {body[:300]!r}"
    return ""


class HttpAttacker:
    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def run(self, attack: Attack) -> Outcome:
        """One attack on a connection of its own."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._run(attack)
        except TimeoutError:
            return Outcome(attack.kind, (), f"no answer in {ANSWER_S:g} s")

    async def _run(self, attack: Attack) -> Outcome:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=1 << 26)
        try:
            for index, piece in enumerate(attack.pieces):
                if index:
                    await asyncio.sleep(attack.pause_s)
                writer.write(piece)
            if attack.end == "abort":
                writer.transport.abort()
                return Outcome(attack.kind, ())
            if attack.end == "close":
                with contextlib.suppress(OSError, RuntimeError):
                    writer.write_eof()
                answers = await read_answers(reader, 1 << 10)
            else:
                answers = await read_answers(reader, attack.answers)
                if len(answers) < attack.answers:
                    return Outcome(attack.kind, ("closed",), f"{len(answers)} of {attack.answers} answers came")
            wrong = next(filter(None, (judge(*answer) for answer in answers)), "")
            return Outcome(attack.kind, tuple(str(status) for status, _ in answers) or ("closed",), wrong)
        except ConnectionError:
            return Outcome(attack.kind, ("reset",))
        finally:
            writer.transport.abort()

    async def is_well(self) -> str:
        """What is wrong with the answer to a good request."""
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                writer.write(good_request())
                ((status, body),) = await read_answers(reader, 1)
                writer.close()
        except (OSError, TimeoutError, ValueError) as error:
            return f"a good request got no answer: {error!r}"
        data = {output["name"]: output["data"] for output in json.loads(body).get("outputs", ())}
        return "" if status == 200 and data["sum"] == [4.0, 6.0] else f"a good request got {status} {body[:300]!r}"


def resident_kib(pids: list[int]) -> int:
    """Resident memory of the processes together; 0 where they cannot be seen."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/status").read_text()
            total += int(text.partition("VmRSS:")[2].split()[0])
    return total


async def storm(
    url: str, grpc_url: str, count: int, seed: int, pids: list[int], at_once: int = 16, first: int = 0
) -> Report:
    """Runs attacks number `first` to `first + count` and asks in between if all is well."""
    parts = urlsplit(url)
    http = HttpAttacker(parts.hostname or "127.0.0.1", parts.port or 80)
    statuses: collections.Counter[str] = collections.Counter()
    kinds: collections.Counter[str] = collections.Counter()
    wrongs: list[str] = []
    numbers = iter(range(first, first + count))
    calm_kib, done = 0, 0
    started = time.monotonic()
    async with GrpcAttacker(grpc_url) as grpc:

        async def attack() -> None:
            nonlocal done, calm_kib
            for number in numbers:
                made = make_attack(seed, number)
                if made.grpc is not None:
                    outcome = Outcome(made.kind, *await grpc.run(made.grpc))
                else:
                    outcome = await http.run(made)
                kinds[outcome.attack] += 1
                statuses.update(outcome.statuses or ("left",))
                if outcome.wrong:
                    wrongs.append(f"seed {seed} attack {number} ({outcome.attack}): {outcome.wrong}")
                done += 1
                if done % GOOD_EVERY == 0 and (wrong := await http.is_well()):
                    wrongs.append(f"after {done} attacks: {wrong}")
                if done >= count * CALM_SHARE and not calm_kib:
                    calm_kib = resident_kib(pids)

        await asyncio.gather(*(attack() for _ in range(at_once)))
        if wrong := await http.is_well() or await grpc.is_well():
            wrongs.append(f"in the end: {wrong}")
    return Report(count, time.monotonic() - started, dict(statuses), dict(kinds), wrongs, calm_kib, resident_kib(pids))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first attack")
    parser.add_argument("--url", help="of the HTTP port; without it a server of its own is started")
    parser.add_argument("--grpc", help="HOST:PORT")
    parser.add_argument("--pid", type=int, action="append", default=[], help="of a gateway, to watch its memory")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url, grpc_url, pids = options.url, options.grpc, options.pid
        if url is None:
            from tests.e2e.conftest import MODELS
            from tests.e2e.served import Served

            home = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "home"
            served = stack.enter_context(Served(home, MODELS))
            url, grpc_url, pids = served.url, served.grpc, served.pids("gateway")
        report = asyncio.run(storm(url, grpc_url, options.count, options.seed, pids, first=options.first))
    print(f"{report.count} attacks in {report.seconds:.1f} s")
    print("statuses:", ", ".join(f"{status} × {n}" for status, n in sorted(report.statuses.items())))
    print("kinds:", ", ".join(f"{kind} × {n}" for kind, n in sorted(report.kinds.items())))
    print(f"resident: {report.calm_kib >> 10} MiB after {CALM_SHARE:.0%}, {report.end_kib >> 10} MiB in the end")
    for wrong in report.wrongs[:50]:
        print("WRONG:", wrong)
    print(f"{len(report.wrongs)} wrong")
    return 1 if report.wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
