"""How each process of the tree is described to the supervisor: its command line, its configuration, its place in the
drain. Called by `control` for runners and by `cli` for the rest."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from hyperion.fleet.lifeline import CONFIG_VARIABLE
from hyperion.fleet.messages import Child, ChildSpec, Confinement
from hyperion.schema.batch import BatchConfig
from hyperion.schema.config import MIB, ControlConfig, GatewayConfig, RunnerConfig

GATEWAY_WAVE, CONTROL_WAVE, RUNNER_WAVE = 0, 1, 2
MODEL_OUTPUT_BYTES_S: Final = 64 << 10
SILENCE_S: Final = 10.0  # beyond the deadline, by when a runner has ended a computation itself, if it can

_ENCODER = msgspec.json.Encoder()
BATCH: Final = "batch"
_BATCH: msgspec.json.Decoder[BatchConfig] = msgspec.json.Decoder(BatchConfig)
_RUNNER: msgspec.json.Decoder[RunnerConfig] = msgspec.json.Decoder(RunnerConfig)


def describe_runner(config: RunnerConfig) -> ChildSpec:
    """One replica. Its configuration is its label, so that a new control process finds out what runs."""
    label = _ENCODER.encode(config).decode()
    return ChildSpec(
        name=config.replica,
        argv=_argv("runner", config.replica),
        env={CONFIG_VARIABLE: label},
        label=label,
        wave=RUNNER_WAVE,
        output_bytes_s=MODEL_OUTPUT_BYTES_S,
        confinement=_confine(config) if config.sandbox != "off" and config.scratch else None,
        silence_s=config.spec.options.deadline_ms / 1000 + SILENCE_S,
    )


def _confine(config: RunnerConfig) -> Confinement:
    options = config.spec.options
    return Confinement(config.scratch, options.scratch_mb * MIB, options.memory_mb * MIB, (config.socket,))


def describe_gateway(config: GatewayConfig) -> ChildSpec:
    """One gateway worker."""
    name = f"gateway {config.worker}"
    fds = tuple(fd for fd in (config.http_fd, config.grpc_fd) if fd is not None)
    return ChildSpec(
        name, _argv("gateway", str(config.worker)), {CONFIG_VARIABLE: _ENCODER.encode(config).decode()}, pass_fds=fds
    )


def describe_control(config: ControlConfig) -> ChildSpec:
    """The control process."""
    fds = () if config.admin_fd is None else (config.admin_fd,)
    variable = {CONFIG_VARIABLE: _ENCODER.encode(config).decode()}
    return ChildSpec("control", _argv("control"), variable, wave=CONTROL_WAVE, pass_fds=fds)


def describe_batch(config: BatchConfig) -> ChildSpec:
    """The process of a batch job. Its configuration is its label, as that of a runner is."""
    label = _ENCODER.encode(config).decode()
    name = f"{BATCH} {config.name}"
    return ChildSpec(name, _argv(BATCH, config.name), {CONFIG_VARIABLE: label}, label=label, wave=CONTROL_WAVE)


def read_batches(children: Iterable[Child]) -> list[tuple[Child, BatchConfig]]:
    """Return those children that run batch jobs, with their configuration."""
    return [(child, _BATCH.decode(child.label)) for child in children if child.name.startswith(f"{BATCH} ")]


def read_runners(children: Iterable[Child]) -> list[tuple[Child, RunnerConfig]]:
    """Return those children that are runners, with their configuration."""
    return [(child, _RUNNER.decode(child.label)) for child in children if child.wave == RUNNER_WAVE and child.label]


def name_replica(model: str, version: str, generation: int, index: int) -> str:
    """Return `fraud@1.g3.0`: model, version, generation and number of a replica."""
    return f"{model}@{version}.g{generation}.{index}"


def name_socket(run_dir: Path, replica: str) -> Path:
    """Return where a replica listens: short whatever its name, because the path of a Unix socket has 107 bytes."""
    import hashlib

    return run_dir / f"r-{hashlib.sha256(replica.encode()).hexdigest()[:16]}.sock"


def name_scratch(run_dir: Path, replica: str) -> Path:
    """Return where a replica's private directory is."""
    return name_socket(run_dir, replica).with_suffix(".tmp")


def _argv(role: str, *title: str) -> tuple[str, ...]:
    # The title is for `ps`, until the process has set its own; the configuration goes through the environment, which
    # only its owner can read.
    return (os.path.abspath(sys.executable), "-m", "hyperion.cli.process", role, *title)
