"""Which internal endpoints follow from a resource, and how they are called."""

from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.graph.members import find_owner, list_members, list_neighbours, list_references, name_member
from hyperion.schema.protect import Breaker, Fallback, Graph, GraphStep
from hyperion.schema.resource import Batching, Endpoint, EndpointSpec, Metadata, Replicas, Resources
from hyperion.store.names import is_valid_name

STEPS = (GraphStep("small", model="small@1"), GraphStep("other", endpoint="large"), GraphStep("far", upstream="dr"))


def endpoint(spec: EndpointSpec) -> Endpoint:
    return Endpoint(Metadata("fraud", {"team": "risk"}), spec)


def test_a_step_with_a_model_runs_as_the_owner_says_and_the_others_are_not_ours() -> None:
    spec = EndpointSpec(
        graph=Graph("cascade", STEPS),
        replicas=Replicas(2),
        resources=Resources(threads=3),
        batching=Batching(8),
        deadline_ms=77,
        breaker=Breaker(0.1),
        coalesce=True,
    )
    (member,) = list_members(endpoint(spec))
    assert member.metadata == Metadata("fraud~small")
    inner = member.spec
    assert (inner.model, inner.replicas.min, inner.resources.threads, inner.batching.max_size) == ("small@1", 2, 3, 8)
    assert (inner.deadline_ms, inner.breaker, inner.coalesce, inner.log.sample) == (77, Breaker(0.1), False, 0.0)
    assert inner.rollout.strategy == "all-at-once"
    assert list_neighbours(endpoint(spec)) == ("large", "dr")
    assert list_references(endpoint(spec)) == ("small@1",)


def test_links_that_run_something_of_the_registry_are_members_that_run_as_they_were_made() -> None:
    links = (Fallback("small@1"), Fallback(endpoint="rules"), Fallback(version="3"), Fallback(static={"y": [1]}))
    owner = endpoint(EndpointSpec("fraud@5", fallback=links, replicas=Replicas(4)))
    members = list_members(owner)
    assert [(one.metadata.name, one.spec.model) for one in members] == [
        ("fraud~fallback-0", "small@1"),
        ("fraud~fallback-2", "fraud@3"),
    ]
    assert {one.spec.replicas.min for one in members} == {1}
    assert list_references(owner) == ("fraud@5", "small@1", "fraud@3")
    assert list_neighbours(owner) == ("rules",)


def test_an_endpoint_alone_has_none() -> None:
    assert list_members(endpoint(EndpointSpec("fraud@1"))) == ()
    assert list_neighbours(endpoint(EndpointSpec("fraud@1"))) == ()


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True), st.text("abc-_09", min_size=1, max_size=9))
def test_a_members_name_leads_to_its_owner_and_no_user_can_give_it(owner: str, step: str) -> None:
    name = name_member(owner, step)
    assert find_owner(name) == owner
    assert find_owner(owner) == ""
    assert not is_valid_name(name)
