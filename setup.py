"""Compiles the hot path with mypyc when a wheel is built; everything else about the project is in `pyproject.toml`.

The same files run interpreted. Where there is no C compiler the wheel goes without the compiled modules, and an
editable install never has them, so that what is edited is what runs. HYPERION_COMPILE=0 never compiles,
HYPERION_COMPILE=1 fails where it cannot. What it gains, and what it asks of a file: docs/adr/0011-compiled-hot-path.md.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE = "src/hyperion"
HOT = (
    "cli/loadgen",
    "gateway/admit",
    "gateway/batch",
    "gateway/cache/answers",
    "gateway/cache/flights",
    "gateway/cache/front",
    "gateway/cache/key",
    "gateway/cache/memory",
    "gateway/dispatch",
    "gateway/front/caller",
    "gateway/front/door",
    "gateway/front/guard",
    "gateway/front/identity",
    "gateway/front/rules",
    "gateway/graph/cascade",
    "gateway/graph/ensemble",
    "gateway/graph/pipeline",
    "gateway/graph/pool",
    "gateway/graph/run",
    "gateway/graph/switch",
    "gateway/grpc/call",
    "gateway/grpc/connection",
    "gateway/grpc/status",
    "gateway/grpc/stream_call",
    "gateway/grpc/unary",
    "gateway/http/answering",
    "gateway/http/edge",
    "gateway/http/exchange",
    "gateway/http/known",
    "gateway/http/protocol",
    "gateway/http/refusals",
    "gateway/http/repeats",
    "gateway/http/routes",
    "gateway/http/targets",
    "gateway/limits/book",
    "gateway/limits/buckets",
    "gateway/limits/limiter",
    "gateway/limits/usage",
    "gateway/open_calls",
    "gateway/pending",
    "gateway/pipeline",
    "gateway/pool",
    "gateway/pools",
    "gateway/recovery/breakers",
    "gateway/recovery/course",
    "gateway/recovery/hedging",
    "gateway/recovery/plan",
    "gateway/recovery/static_answer",
    "gateway/release/counts",
    "gateway/release/shadow",
    "gateway/release/split",
    "gateway/release/tally",
    "gateway/replica",
    "gateway/room",
    "gateway/route",
    "gateway/table",
    "gateway/turns",
    "gateway/upstream/link",
    "gateway/upstream/pool",
    "policy/access",
    "policy/admission",
    "policy/batching",
    "policy/breaker",
    "policy/brownout",
    "policy/cache_worth",
    "policy/constraints",
    "policy/fairness",
    "policy/fallback",
    "policy/hedge",
    "policy/latency",
    "policy/rate_limit",
    "policy/retry",
    "runner/channel",
    "runner/loop",
    "schema/call",
    "telemetry/exposition",
    "telemetry/metrics",
    "wire/bytes_elements",
    "wire/frame",
    "wire/grpc/contents",
    "wire/grpc/framing",
    "wire/http2/connection",
    "wire/http2/frames",
    "wire/http2/input",
    "wire/http2/send",
    "wire/http2/stream",
    "wire/json/data",
    "wire/json/text",
    "wire/oip/answer",
    "wire/oip/grpc",
    "wire/oip/grpc_known",
    "wire/oip/json",
    "wire/oip/known",
    "wire/tensor",
)


class ParallelBuild(build_ext):
    """Runs as many C compilers at a time as there are cores: mypyc makes one extension of many files."""

    def build_extensions(self) -> None:
        compile_all = self.compiler.compile

        def compile_each(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as threads:
                return list(chain.from_iterable(threads.map(lambda one: compile_all([one], **options), sources)))

        self.compiler.compile = compile_each
        super().build_extensions()


def check_compiler() -> None:
    """Raises OSError or CalledProcessError unless there is a C compiler that finds Python's headers."""
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    headers = [f"-I{sysconfig.get_path(kind)}" for kind in ("include", "platinclude")]
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "probe.c")
        source.write_text("#include <Python.h>\n")
        subprocess.run([*command, *headers, "-c", source, "-o", source.with_suffix(".o")], check=True)  # noqa: S603


def hot_path() -> list[Extension]:
    """The compiled modules, or none where a wheel is not what is built or cannot have them."""
    wanted = os.environ.get("HYPERION_COMPILE", "auto")
    if wanted == "0" or "bdist_wheel" not in sys.argv:
        return []
    os.environ["MYPYPATH"] = "src"
    try:
        check_compiler()
        from mypyc.build import mypycify

        # Only what is compiled has to be free of errors here: the stubs of other modules are a developer's tools.
        options = ["--config-file", "pyproject.toml", "--ignore-missing-imports", "--follow-imports", "silent"]
        files = [f"{PACKAGE}/{name}.py" for name in HOT]
        level = os.environ.get("MYPYC_OPT_LEVEL", "2")
        made: list[Extension] = mypycify([*options, *files], opt_level=level, debug_level="0", multi_file=True)
        return made
    except (ImportError, OSError, subprocess.CalledProcessError, SystemExit) as error:
        if wanted == "1":
            raise
        print(f"hyperion: the hot path stays interpreted, as it cannot be compiled here: {error}", file=sys.stderr)
        return []


setup(ext_modules=hot_path(), cmdclass={"build_ext": ParallelBuild})
