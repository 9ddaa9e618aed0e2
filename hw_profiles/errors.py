"""What hw_profiles raises.

ValueError
  InvalidInput          a field of an argument is wrong; names the field and the value seen
RuntimeError
  RuntimeMissing        the engine of a runtime is not installed; names the extra that brings it
"""

from __future__ import annotations


class InvalidInput(ValueError):
    """`field` of the caller's input is wrong; `value` is what was seen."""

    def __init__(self, field: str, value: object, message: str) -> None:
        super().__init__(f"{field}: {message} (got {value!r:.200})")
        self.field = field
        self.value = value
        self.message = message


class ExtraMissing(RuntimeError):
    """Something was asked for whose library is not installed here."""

    def __init__(self, wanted: str, extra: str) -> None:
        super().__init__(f"{wanted} needs `pip install 'netlathe[{extra}]'`")
        self.wanted = wanted
        self.extra = extra
