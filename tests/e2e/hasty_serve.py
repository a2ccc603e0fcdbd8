"""`hyperion serve` whose control and gateways are `tests.e2e.hasty_process`: they take others for dead, and ask others
again, sooner than they do for users. For tests of what comes after such a wait."""

import sys

from hyperion.cli.main import main
from hyperion.fleet import replicas

_plain = replicas._argv


def _argv(role: str, *title: str) -> tuple[str, ...]:
    python, dash_m, _, *rest = _plain(role, *title)
    return (python, dash_m, "tests.e2e.hasty_process", *rest)


if __name__ == "__main__":
    replicas._argv = _argv
    sys.exit(main())
