"""`hyperion serve` whose control process is `tests.e2e.faulty_control`; everything else is as it always is."""

import sys

from hyperion.cli.main import main
from hyperion.fleet import replicas

_plain = replicas._argv


def _argv(role: str, *title: str) -> tuple[str, ...]:
    python, dash_m, module, *rest = _plain(role, *title)
    return (python, dash_m, "tests.e2e.faulty_control" if role == "control" else module, *rest)


if __name__ == "__main__":
    replicas._argv = _argv
    sys.exit(main())
