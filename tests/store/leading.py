"""A control process that does nothing but lead and write: for the test that kills it. Imports little."""

import os
import time
from pathlib import Path

from hyperion.store import ledger
from hyperion.store.database import open_home
from hyperion.store.leadership import Leadership

PACE_S = 0.02


def run(home: Path, url: str) -> None:
    """Leads whenever it can, and then writes entries that say its process id and its fence, until it is killed."""
    database = open_home(home, url)
    leadership = Leadership(database, "control", lease_s=1.0)
    while True:
        fence = leadership.try_lead()
        while fence is not None and leadership.renew():
            with database.write(fence=fence) as tx:
                ledger.append(tx, "test.led", "control", actor=str(os.getpid()), detail={"fence": fence})
            time.sleep(PACE_S)
        time.sleep(PACE_S)
