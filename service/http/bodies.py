"""Base class and name check of request bodies."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from hw_profiles.device import NAME_PATTERN

NAME = re.compile(rf"{NAME_PATTERN}\Z")
_LOOKS_LIKE_AN_ID = re.compile(r"(mdl|dts|dev|job|evl|art|agt|tok)_")


def check_name(value: str) -> str:
    """Return a resource's name after checking it; a name that could be mistaken for an id is refused.

    Raises:
        ValueError: the name breaks a rule; the text says which.
    """
    if not NAME.match(value):
        raise ValueError(f"must match {NAME_PATTERN}")
    if _LOOKS_LIKE_AN_ID.match(value):
        raise ValueError("must not begin the way an id does")
    return value


Name = Annotated[str, AfterValidator(check_name)]


class Body(BaseModel):
    """Base class of request bodies. It refuses unknown keys, non-finite numbers, and values of the wrong type, such as
    `"5"` or `true` for 5.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
