"""Every server under test by name, from the one file each has in ``peers/``."""

from __future__ import annotations

from bench.peer import Peer
from bench.peers import bentoml, hyperion, kserve, litserve, mlserver, mosec, nginx, pytriton, ray, triton

ALL: dict[str, Peer] = {
    module.PEER.name: module.PEER
    for module in (hyperion, mosec, triton, pytriton, mlserver, kserve, litserve, bentoml, ray, nginx)
}
