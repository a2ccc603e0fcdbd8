"""Three `hyperion serve` on one Redis, and a tenant that asks each of them for much more than it may have of all.

`python -m tests.e2e.fleet_limits --seconds 60`: first with Redis, then with Redis killed at a third of the time and
started again, empty, at two thirds. What is admitted must stay within `policy/lease.admitted_most`, a quiet tenant must
get every answer, and nobody anything but 200 and 429. Prints a JSON document; the exit code is 1 if anything was not as
it must be.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from hyperion.policy.lease import admitted_most
from tests.e2e.admin_client import Api
from tests.e2e.served import Served
from tests.gateway.redis_server import RedisServer

MODEL: Final = Path(__file__).parent / "models" / "sums"
GATEWAYS: Final = 3
CONNECTIONS: Final = 4  # per gateway
QUIET_S: Final = 0.1  # between two requests of the quiet tenant to one gateway
LEAST: Final = 0.85  # of what one bucket would admit, so that the limit is used, too
BODY: Final = json.dumps(
    {"inputs": [{"name": name, "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} for name in "ab"]}
).encode()


class Caller:
    """One connection of a tenant to a gateway, asking one request after the other."""

    def __init__(self, port: int, tenant: str, pause_s: float) -> None:
        self.statuses: Counter[int] = Counter()
        self.times: list[float] = []  # at which a request was admitted
        self._port = port
        self._pause_s = pause_s
        self._request = (
            f"POST /v2/models/sums/infer HTTP/1.1\r\nhost: x\r\nx-hyperion-tenant: {tenant}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY

    async def run(self, until: asyncio.Event) -> None:
        """Asks until then."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while not until.is_set():
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            status = int(head[9:12])
            self.statuses[status] += 1
            if status == 200:
                self.times.append(time.monotonic())
            elif status == 429:
                assert b"\r\nretry-after: " in head, head
            await asyncio.sleep(self._pause_s)
        writer.close()


async def overload(
    servers: Sequence[Served], seconds: float, meanwhile: Callable[[float], Awaitable[None]]
) -> dict[str, Any]:
    """What came of so many seconds of it."""
    ended = asyncio.Event()
    noisy = [Caller(server.port, "noisy", 0.001) for server in servers for _ in range(CONNECTIONS)]
    quiet = [Caller(server.port, "quiet", QUIET_S) for server in servers]
    began_s = time.monotonic()
    load = [asyncio.ensure_future(caller.run(ended)) for caller in (*noisy, *quiet)]
    await asyncio.gather(asyncio.sleep(seconds), meanwhile(seconds))
    ended.set()
    await asyncio.gather(*load)
    elapsed_s = time.monotonic() - began_s
    statuses = sum((caller.statuses for caller in noisy), Counter[int]())
    times = sorted(at - began_s for caller in noisy for at in caller.times)
    by_second = Counter(int(at) for at in times)
    return {
        "seconds": round(elapsed_s, 2),
        "asked_per_s": round(statuses.total() / elapsed_s),
        "admitted": statuses[200],
        "statuses": dict(statuses),
        "quiet": dict(sum((caller.statuses for caller in quiet), Counter[int]())),
        "admitted_by_second": [by_second[second] for second in range(int(elapsed_s))],
    }


def judge(found: dict[str, Any], rate: float, burst: int, outages: int, least: float) -> list[str]:
    """What was not as it must be. Adds the bound."""
    most = admitted_most(rate, burst, GATEWAYS, found["seconds"], outages)
    alone = burst + rate * found["seconds"]
    found |= {"one_bucket": round(alone), "bound": round(most), "of_one_bucket": round(found["admitted"] / alone, 4)}
    wrong = []
    if found["admitted"] > most:
        wrong.append(f"{found['admitted']} admitted, the bound is {most:.0f}")
    if found["admitted"] < least * alone:
        wrong.append(f"only {found['admitted']} admitted of {alone:.0f}")
    if set(found["statuses"]) != {200, 429}:
        wrong.append(f"the noisy tenant got {found['statuses']}")
    if set(found["quiet"]) != {200}:
        wrong.append(f"the quiet tenant got {found['quiet']}")
    return wrong


def run(seconds: float, rate: float, burst: int, directory: Path, least: float = LEAST) -> dict[str, Any]:
    """Both parts. `wrong` in the answer says what was not as it must be; `least` of a limit has to be used."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(directory))
        options = ("--redis-url", redis.url, "--trusted-proxies", "127.0.0.0/8")
        servers = [Served(directory / f"home{number}", MODEL, options=options) for number in range(GATEWAYS)]
        with ThreadPoolExecutor() as threads:
            for server in threads.map(lambda one: one.__enter__(), servers):
                stack.push(server.__exit__)
        limits = {"requests_per_second": rate, "burst": burst}
        for server in servers:
            for name, spec in (("noisy", {"limits": limits}), ("quiet", {})):
                tenant = {"kind": "Tenant", "metadata": {"name": name}, "spec": spec}
                Api(server).ask("PUT", f"tenants/{name}", tenant)

        async def nothing(_seconds: float) -> None:
            return

        async def lose_redis(seconds: float) -> None:
            await asyncio.sleep(seconds / 3)
            redis.kill()
            await asyncio.sleep(seconds / 3)
            await asyncio.to_thread(redis.start)

        shared = asyncio.run(overload(servers, seconds, nothing))
        wrong = judge(shared, rate, burst, 0, least)
        time.sleep(burst / rate)  # the bucket is full again
        killed = asyncio.run(overload(servers, seconds, lose_redis))
        wrong += judge(killed, rate, burst, 1, least)
        return {"rate": rate, "burst": burst, "gateways": GATEWAYS, "shared": shared, "killed": killed, "wrong": wrong}


def main() -> int:
    """Runs it as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--burst", type=int, default=400)
    given = parser.parse_args()
    with TemporaryDirectory() as directory:
        found = run(given.seconds, given.rate, given.burst, Path(directory))
    print(json.dumps(found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
