"""Hostile gRPC calls: any bytes as messages, and calls that are given up."""

import asyncio
from types import TracebackType
from typing import Any, Self

import grpc

from tests.e2e.hostile_attack import GrpcAttack
from tests.e2e.hostile_messages import infer_message

SERVICE = "/inference.GRPCInferenceService/"
ANSWER_S = 20.0
WRONG = ("INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "DEADLINE_EXCEEDED")


class GrpcAttacker:
    def __init__(self, url: str) -> None:
        self._url = url
        self._channel: grpc.aio.Channel

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def run(self, attack: GrpcAttack) -> tuple[tuple[str, ...], str]:
        """The status, and what is wrong with it: only a model may fail."""
        call: Any
        path = SERVICE + attack.method
        if attack.streaming:
            call = self._channel.stream_stream(path)(iter(attack.messages), metadata=attack.metadata, timeout=ANSWER_S)
            reading = asyncio.ensure_future(read_all(call))
        else:
            call = self._channel.unary_unary(path)(attack.messages[0], metadata=attack.metadata, timeout=ANSWER_S)
            reading = asyncio.ensure_future(call)
        if attack.cancel_s:
            await asyncio.wait([reading], timeout=attack.cancel_s)
            call.cancel()
        try:
            await reading
        except grpc.aio.AioRpcError as error:
            name = error.code().name
            details = error.details() or ""
            wrong = f"{name} {details[:300]}" if name in WRONG and " raised " not in details else ""
            return (f"grpc {name}",), wrong
        except asyncio.CancelledError:
            return ("grpc left",), ""
        return ("grpc OK",), ""

    async def is_well(self) -> str:
        """What is wrong with the answer to a good call."""
        (status,), _ = await self.run(GrpcAttack("ModelInfer", (infer_message(),), False, 0.0))
        return "" if status == "grpc OK" else f"a good gRPC call got {status}"


async def read_all(call: Any) -> None:
    async for _message in call:
        pass
