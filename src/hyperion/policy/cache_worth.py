"""Whether looking into the cache pays: what hits save, against what every look costs. Pure; `gateway/cache/answers`
counts.

Two shares of hits are followed, and the higher one counts. `recent` is of all looks, and finds what comes again soon.
`sampled` is of the requests of a fixed small part of all keys, which are looked up at all times: what comes again after
long shows there even while everything else passes the cache by (spatial sampling: Waldspurger et al., "Efficient MRC
construction with SHARDS", FAST 2015). A cache that does not pay is asked by that part and by a few requests a second,
which are all there are where traffic is light.
"""

from typing import Final

from msgspec import Struct

HALF_LIFE: Final = 2_048.0  # looks after which half of the old share is forgotten
SAMPLED_HALF_LIFE: Final = 128.0  # the same for the sample: some 16,000 requests
SAMPLE: Final = 128  # one key of so many is in it
FIRST_SHARE: Final = 0.5  # believed of a new cache, until it was seen to be wrong
MARGIN: Final = 2.0  # by which a cache that did not pay has to, lest it come and go
REST_NS: Final = 1_500.0  # of a look, beside making its key: finding nothing, and keeping the answer
MISS_NS: Final = 10_000.0  # what a miss costs the gateway and the runner beside the model (bench/micro_gateway.py)
LOOKS_PER_S: Final = 256  # while it does not pay: some 2 ms of each second, keeping the answers included


class Worth(Struct, frozen=True, gc=False):
    """The shares of hits, 0 to 1, and the verdict."""

    recent: float = FIRST_SHARE
    sampled: float = FIRST_SHARE
    pays: bool = True


class Seen(Struct, frozen=True, gc=False):
    """What was counted since the last judgement. `sampled_*` are among the others; `key_ns` is what making a key takes,
    `compute_ns` what a request takes in the model, both on average."""

    looks: int
    hits: int
    sampled_looks: int
    sampled_hits: int
    key_ns: float
    compute_ns: float


def break_even(key_ns: float, compute_ns: float) -> float:
    """The share of hits from which on looking is cheaper than not looking.

    >>> round(break_even(1_000.0, 0.0), 2), round(break_even(1_000.0, 1e6), 4)
    (0.25, 0.0025)
    """
    return (max(0.0, key_ns) + REST_NS) / (MISS_NS + max(0.0, compute_ns))


def follow(share: float, looks: int, hits: int, half_life: float) -> float:
    """The moving share of hits after so many more looks.

    >>> follow(0.5, 64, 0, 64.0), follow(0.5, 64, 64, 64.0), follow(0.5, 0, 0, 64.0)
    (0.25, 0.75, 0.5)
    """
    if looks <= 0:
        return share
    kept: float = 0.5 ** (looks / half_life)
    return share * kept + (hits / looks) * (1.0 - kept)


def judge(worth: Worth, seen: Seen) -> Worth:
    """The worth after what was seen.

    >>> judge(Worth(), Seen(8192, 0, 8192, 0, 1_000.0, 0.0)).pays
    False
    >>> judge(Worth(0.0, 0.0, False), Seen(4096, 4096, 100, 0, 1_000.0, 0.0)).pays
    True
    """
    recent = follow(worth.recent, seen.looks, seen.hits, HALF_LIFE)
    sampled = follow(worth.sampled, seen.sampled_looks, seen.sampled_hits, SAMPLED_HALF_LIFE)
    needed = break_even(seen.key_ns, seen.compute_ns)
    if not worth.pays:
        needed = min(needed * MARGIN, (needed + 1.0) / 2.0)  # within reach, however much a look costs
    return Worth(recent, sampled, max(recent, sampled) >= needed)


def looks(worth: Worth, sampled: bool, looks_this_second: int) -> bool:
    """Whether a request is looked up.

    >>> looks(Worth(), False, 10_000), looks(Worth(0.0, 0.0, False), False, 10_000)
    (True, False)
    >>> looks(Worth(0.0, 0.0, False), True, 10_000), looks(Worth(0.0, 0.0, False), False, 3)
    (True, True)
    """
    return worth.pays or sampled or looks_this_second < LOOKS_PER_S
