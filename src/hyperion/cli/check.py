"""One finding of `hyperion doctor`."""

from msgspec import Struct


class Check(Struct, frozen=True):
    """`verdict` is ok, note (something optional is missing) or bad (serving cannot work like this). `uncovered` names
    what the sandbox does not stop here."""

    name: str
    verdict: str
    detail: str
    uncovered: tuple[str, ...] = ()
