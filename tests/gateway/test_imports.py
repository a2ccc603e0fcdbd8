"""What a gateway does without until its first answer, because `hyperion serve` is as fast as its imports."""

import subprocess
import sys

SLOW = ("numpy", "grpc", "google.protobuf", "pydantic", "fastapi")


def test_a_gateway_starts_without_the_slow_libraries() -> None:
    code = f"import sys, hyperion.gateway.process; print([name for name in {SLOW} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
