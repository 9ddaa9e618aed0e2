"""The exceptions of hw_profiles.

ValueError
  InvalidInput          a field of an argument is wrong; names the field and the value seen
RuntimeError
  ExtraMissing          the engine of a runtime is not installed; names the extra to install
"""

from __future__ import annotations


class InvalidInput(ValueError):
    """`field` of the caller's input is wrong; `value` is the value seen."""

    def __init__(self, field: str, value: object, message: str) -> None:
        super().__init__(f"{field}: {message} (got {value!r:.200})")
        self.field = field
        self.value = value
        self.message = message


def install_command(extra: str) -> str:
    """Return the command that installs an extra. Netlathe is installed from a clone, not from a registry."""
    return f"pip install '.[{extra}]' -c constraints.txt (in the clone)"


class ExtraMissing(RuntimeError):
    """A library that the request needs is not installed here."""

    def __init__(self, wanted: str, extra: str) -> None:
        super().__init__(f"{wanted} needs {install_command(extra)}")
        self.wanted = wanted
        self.extra = extra
