"""What the API takes and answers about labels, as pydantic models."""

from typing import Annotated, Final

from pydantic import BaseModel, Field

LABELS_MAX: Final = 10_000
Whole = Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=1_000)]


class LabelItem(BaseModel):
    """What one prediction should have been."""

    prediction_id: str = Field(min_length=1, max_length=200, description="the answer's x-request-id")
    label: bool | Whole | Number | Text = Field(
        description="as the model's first output says it: a label, a number, or the index of the class; "
        "64 characters are compared"
    )
    source: str = Field(
        min_length=1,
        max_length=128,
        description="who says so; a later label of the same source replaces its earlier one",
    )
    time: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="seconds since 1970 when it was found out; null is now"
    )

    model_config = {"extra": "forbid"}


class LabelsView(BaseModel):
    """What was taken."""

    accepted: int
    unknown: int = Field(
        description="how many predictions nothing is kept of, or not yet: only a sample is, and a label may come first"
    )
