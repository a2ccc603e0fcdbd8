"""`/api/v1/labels`: what turned out to be true of predictions, by which rollouts with `halt.quality` are judged."""

from typing import Annotated

from fastapi import APIRouter, Body

from hyperion.api.callers import Labeller
from hyperion.api.records import Management, desk_of
from hyperion.api.records_labels import LABELS_MAX, LabelItem, LabelsView

Items = Annotated[list[LabelItem], Body(min_length=1, max_length=LABELS_MAX)]


def add_label_routes(router: APIRouter, management: Management) -> None:
    """Add the route."""

    @router.post("/labels")
    def put_labels(_caller: Labeller, body: Items) -> LabelsView:
        """Say what predictions should have been. The same again changes nothing; needs the scope infer or deploy."""
        given = [(item.prediction_id, item.label, item.source, item.time) for item in body]
        return LabelsView(accepted=len(given), unknown=desk_of(management).labels.put(given))
