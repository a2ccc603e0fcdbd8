"""Control or a gateway as it is, but for how long it waits: see `tests.e2e.hasty_serve`."""

import sys

from hyperion.cli.process import main
from hyperion.policy import callbacks, idempotency, jobs

LEASE_S = 2.5  # of jobs and of idempotent calls: as long as those who died have them
TOLD_AGAIN_S = 0.5  # after a callback that failed
SOON_S = 1.0  # between two questions to an issuer whose key is not known

if __name__ == "__main__":
    jobs.LEASE_S = idempotency.LEASE_S = LEASE_S
    jobs.RENEW_S = LEASE_S / 4
    callbacks.FIRST_WAIT_S = TOLD_AGAIN_S
    if sys.argv[1] == "control":
        from hyperion.control import labels
        from hyperion.control.callers import directory
        from hyperion.control.jobs import batches

        directory.SOON_S = SOON_S
        batches.LOOK_S = labels.ASK_S = 0.2
    sys.exit(main())
