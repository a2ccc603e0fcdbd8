"""The endpoints that `graph fit` makes for a while, against a live management API."""

from pathlib import Path

import pytest

from hyperion.cli.admin import Admin
from hyperion.cli.graph_members import serve_steps
from hyperion.schema.errors import Conflict
from hyperion.schema.protect import Graph, GraphStep
from hyperion.schema.resource import Endpoint, EndpointSpec, Metadata
from tests.api.platform import Platform, endpoint

STEPS = (GraphStep("small", model="fraud@1"), GraphStep("large", model="fraud@1"))
GRAPH = Endpoint(Metadata("both"), EndpointSpec(graph=Graph("cascade", STEPS)))


def test_an_endpoint_of_somebody_is_neither_changed_nor_deleted(tmp_path: Path) -> None:
    with Platform(tmp_path / "home") as platform:
        platform.push("fraud", "1")
        admin = Admin(platform.url, platform.token)
        theirs = endpoint("both-fit-large", "fraud@1", deadline_ms=1_234)
        admin.post("resources", body=[theirs])
        with (
            pytest.raises(Conflict, match='"both-fit-large" is there already'),
            serve_steps(admin, "http://127.0.0.1:9", "", GRAPH),
        ):
            pytest.fail("its members are not there")
        assert admin.get("endpoints", "both-fit-large")["spec"]["deadline_ms"] == 1_234
        kinds = {
            name: [entry["kind"] for entry in admin.pages("ledger", "entries", subject=name)]
            for name in ("both-fit-small", "both-fit-large")
        }
        assert "endpoint.delete" in kinds["both-fit-small"]
        assert "endpoint.delete" not in kinds["both-fit-large"]
