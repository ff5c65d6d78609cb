"""What every group of parameters is, and the types that several share."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def invisible(text: str) -> str | None:
    """What of a text does not belong into one line of a table, a log or a terminal, as an escape; None if nothing does.

    Control characters, ends of lines, marks that turn the direction of writing, and halves of characters.
    """
    found = _INVISIBLE.search(text)
    return ascii(found.group())[1:-1] if found else None


def visible(text: str) -> str:
    """A text with escapes in the place of what is invisible; its ends of lines stay."""
    return "\n".join(_INVISIBLE.sub(lambda found: ascii(found.group())[1:-1], line) for line in text.split("\n"))


def _refuse_invisible(text: str) -> str:
    found = invisible(text)
    if found is not None:
        raise ValueError(f"must be one line of visible characters, but has {found}")
    return text


Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.]*$")]
"""Names become parts of paths and of shell commands: lower-case letters, digits, `_` and `.` only."""
Line = Annotated[str, AfterValidator(_refuse_invisible)]
"""Words that stand in tables, figures and terminals."""
Seed = Annotated[int, Field(ge=0, lt=1 << 30)]
Address = Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/\S*)?$")]
"""Of a download: neither a file of this machine nor one with a password, which would be written into results."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
"""A full git hash: a branch or a tag can move, a short hash can become ambiguous."""
Quantiles = Annotated[tuple[NotNegativeFloat, ...], Field(min_length=2)]
"""Values at equally spaced quantiles, drawn from by interpolation. The first is the minimum, the last the end of a
tail that gives the interpolated values the mean of the data (rdfa.data.statistics), at most the maximum."""


class Section(BaseModel):
    """A group of parameters: immutable, strict about types, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)
