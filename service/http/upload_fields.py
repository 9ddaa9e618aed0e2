"""Text fields of a multipart upload, and the checks that JSON bodies get from their schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from service.errors import InvalidInput
from service.http.bodies import check_name


def checked_name(fields: Mapping[str, str]) -> str:
    """Return the field `name`.

    Raises:
        InvalidInput: the field is missing, or is not a valid name of a resource.
    """
    if "name" not in fields:
        raise InvalidInput("name", None, "is missing")
    try:
        return check_name(fields["name"])
    except ValueError as error:
        raise InvalidInput("name", fields["name"][:80], str(error)) from error


def json_object(fields: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return a field's JSON object; an empty object if the field is left out.

    Raises:
        InvalidInput: the field is not a JSON object.
    """
    text = fields.get(name, "").strip() or "{}"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(name, text[:200], f"must be a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput(name, text[:200], "must be a JSON object")
    return value


def whole_number(fields: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    """Return a field's whole number; None if the field is left out.

    Raises:
        InvalidInput: the field is not a whole number, or out of range.
    """
    text = fields.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise InvalidInput(name, text[:80], f"must be a whole number from {least} to {most}")
    return int(text)


def short_text(fields: Mapping[str, str], name: str, most: int) -> str | None:
    """Return a field's text of at most `most` characters; None if the field is left out.

    Raises:
        InvalidInput: the text is longer.
    """
    text = fields.get(name, "").strip()
    if len(text) > most:
        raise InvalidInput(name, text[:80], f"must be at most {most} characters")
    return text or None
