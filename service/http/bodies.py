"""What request bodies have in common."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from hw_profiles.device import NAME_PATTERN

NAME = re.compile(rf"{NAME_PATTERN}\Z")
_LOOKS_LIKE_AN_ID = re.compile(r"(mdl|dts|dev|job|evl|art|agt|tok)_")


def check_name(value: str) -> str:
    """A resource's name as the contract wants it; one that could be taken for an id is refused.

    Raises:
        ValueError: what is wrong with it.
    """
    if not NAME.match(value):
        raise ValueError(f"must match {NAME_PATTERN}")
    if _LOOKS_LIKE_AN_ID.match(value):
        raise ValueError("must not begin like an id")
    return value


Name = Annotated[str, AfterValidator(check_name)]


class Body(BaseModel):
    """Base of every request body: unknown keys, numbers that are not finite, and `"5"` or `true` for 5 are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
