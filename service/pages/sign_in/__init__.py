"""Sign-in page: accepts the one-time link that `serve` prints, or a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request

from service.depends import State
from service.pages.page import Page


def _fill(request: Request, state: State) -> Mapping[str, Any]:
    return {"token_path": state.settings.user_token_path if state.settings.loopback else None}


PAGE = Page("sign_in", "/sign-in", _fill, open=True)
