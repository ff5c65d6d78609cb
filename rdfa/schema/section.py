"""What every group of parameters is, and the types that several share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.]*$")]
"""Names become parts of paths and of shell commands: lower-case letters, digits, `_` and `.` only."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
"""A full git hash: a branch or a tag can move, a short hash can become ambiguous."""
Quantiles = Annotated[tuple[NotNegativeFloat, ...], Field(min_length=2)]
"""Values at equally spaced quantiles, drawn from by interpolation. The first is the minimum, the last the end of a
tail that gives the interpolated values the mean of the data (rdfa.data.statistics), at most the maximum."""


class Section(BaseModel):
    """A group of parameters: immutable, strict about types, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)
