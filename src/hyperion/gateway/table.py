"""What is served now: from names to pools. Made anew by `gateway/route` for each snapshot, asked for each call."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from hyperion.gateway.front.guard import Guard
from hyperion.gateway.pool import VersionPool
from hyperion.gateway.release.split import SplitRoute
from hyperion.schema.errors import NotReady, UnknownModel
from hyperion.schema.snapshot import GRAPH, UPSTREAM, ModelState, ServedModel


class ModelRoute(Struct, frozen=True):
    """One endpoint: its versions' pools, which of them answers when none is named, how they share where several do,
    and who lets callers in. `served` is what it was made from."""

    default: VersionPool
    versions: dict[str, VersionPool]
    split: SplitRoute | None = None
    served: ServedModel | None = None
    guard: Guard | None = None


def not_served(model: str) -> UnknownModel:
    """What is said of a name that means nothing here, or nothing to this caller."""
    return UnknownModel(f'no model "{model}" is served here; GET /v2/models lists those that are')


class RouteTable(Struct, frozen=True):
    """What is served now. Replaced whole, never changed. `members` are endpoints that only other endpoints call."""

    version: int = 0
    models: dict[str, ModelRoute] = {}
    members: dict[str, ModelRoute] = {}
    index: tuple[ModelState, ...] = ()

    def choose(self, model: str, version: str, headers: Mapping[bytes, bytes] | None) -> VersionPool:
        """The pool that answers a call, by the endpoint's split where it names no version. Raises as `find` does."""
        route = self.models.get(model)
        if route is None or version:
            return self.find(model, version)
        split = route.split
        return route.default if split is None else split.choose(headers)

    def find(self, model: str, version: str) -> VersionPool:
        """The pool for a name; "" is the default version. Raises UnknownModel, or NotReady while it loads."""
        route = self.models.get(model)
        if route is None:
            for row in self.index:
                if row.name == model and row.state == "LOADING":
                    raise NotReady(f'model "{model}" is loading', retry_after_s=1.0)
                if row.name == model and row.version == UPSTREAM:  # where it is, and why, is no caller's business
                    message = f'model "{model}" is served by another server, which has not said yet what it takes'
                    raise NotReady(message, retry_after_s=1.0)
                if row.name == model and row.version == GRAPH:  # it answers once others do
                    raise NotReady(f'model "{model}" cannot answer now: {row.reason}', retry_after_s=1.0)
                if row.name == model:
                    raise UnknownModel(f'model "{model}" is not loaded: {row.reason or row.state.lower()}')
            if not self.version:  # a platform that starts has told nothing yet: that is no 404
                raise NotReady("what is served here is not known yet; ask again shortly", retry_after_s=1.0)
            raise not_served(model)
        if not version:
            return route.default
        pool = route.versions.get(version)
        if pool is None:
            raise UnknownModel(
                f'model "{model}" has no version "{version}"; it has {", ".join(sorted(route.versions))}'
            )
        return pool

    def any_route(self, model: str) -> ModelRoute | None:
        """The route of an endpoint or of a member."""
        return self.models.get(model) or self.members.get(model)

    def pools(self) -> Iterable[VersionPool]:
        for routes in (self.models, self.members):
            for route in routes.values():
                yield from route.versions.values()
