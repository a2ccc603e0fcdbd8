"""Who may know of which endpoint: the lists of models, and what is said of one to somebody who may not ask it.

Used by `gateway/pipeline` for every protocol. Lists name an endpoint to those who may call it, and to all who have
credentials where it has no rules (`policy/access`). What is not served has its rules in its row of the index.
"""

from collections.abc import Mapping
from typing import TypeVar

from hyperion.gateway.front.caller import Peer
from hyperion.gateway.front.door import Door
from hyperion.gateway.route import Router
from hyperion.gateway.table import not_served
from hyperion.schema.protect import Access
from hyperion.schema.snapshot import ModelState

Item = TypeVar("Item")


class Listing:
    """Without a `door` everybody may know of everything."""

    def __init__(self, router: Router, door: Door | None) -> None:
        self._router = router
        self._door = door

    def models(self, headers: Mapping[bytes, bytes], peer: Peer) -> list[str]:
        """Names of the models that are served. Raises Unauthenticated."""
        models = self._router.table.models
        return self._select(list(models), [self._rules_of(name, None) for name in models], headers, peer)

    def index(self, headers: Mapping[bytes, bytes], peer: Peer) -> list[ModelState]:
        """Every known model and its state. Raises Unauthenticated."""
        rows = self._router.table.index
        return self._select(list(rows), [self._rules_of(row.name, row.access) for row in rows], headers, peer)

    def check(self, model: str, headers: Mapping[bytes, bytes], peer: Peer) -> None:
        """Raises, as asking the model would, where the caller may not know what there is to know of it: its versions,
        or why it is not served."""
        route = self._router.table.models.get(model)
        if route is not None:
            if route.guard is not None:
                route.guard.admit(headers, peer)
        elif self._door is not None:
            rules = [row.access for row in self._router.table.index if row.name == model]
            if not all(self._door.shows(rules, headers, peer)):
                raise not_served(model)

    def _rules_of(self, model: str, given: Access | None) -> Access | None:
        """Who may call a model: what is in force where it is served, else what is `given`."""
        route = self._router.table.models.get(model)
        return given if route is None or route.served is None else route.served.protection.access

    def _select(
        self, items: list[Item], rules: list[Access | None], headers: Mapping[bytes, bytes], peer: Peer
    ) -> list[Item]:
        if self._door is None:
            return items
        shown = self._door.shows(rules, headers, peer)
        return [item for item, visible in zip(items, shown, strict=True) if visible]
