"""Errors of this folder.

CompressError
├── InvalidInput (ValueError)   what the user gave is wrong: field, value, what to do
│   └── Disagreement            torch and onnxruntime differ: the first node that does
├── Mistake                     our code fails on what is not known to be wrong; no user can act on it
├── Unsupported                 a case that a row of the op table does not cover; caught, and frozen
└── TrainingDiverged            the loss of a training step is not a finite number
"""

from __future__ import annotations


class CompressError(Exception):
    """Base of all errors raised by compress."""


class InvalidInput(CompressError, ValueError):
    """What the user gave is wrong.

    Args:
        field: the name of the field of the request or file.
        value: the value seen, short enough to print.
        message: what is wrong and what would be right, for a person.
    """

    def __init__(self, field: str, value: object, message: str) -> None:
        seen = "" if value is None else f" (got {value!r:.200})"
        super().__init__(f"{field}: {message}{seen}")
        self.field = field
        self.value = value
        self.message = message


class Disagreement(InvalidInput):
    """torch and onnxruntime give different outputs for the same file.

    Args:
        node: name of the first node, in execution order, whose output differs.
        difference: largest absolute difference over the scale of the output.
        tolerance: what would have been accepted.
    """

    def __init__(self, node: str, op_type: str, difference: float, tolerance: float) -> None:
        message = (
            f"our reading of this file disagrees with onnxruntime, first at node {node!r} ({op_type}): "
            f"difference {difference:.2e} of the output's scale, tolerance {tolerance:.0e}"
        )
        super().__init__("file", node, message)
        self.node = node
        self.difference = difference


class Mistake(CompressError):
    """Our code fails on an input that is not known to be wrong: ours to mend, and nothing a user can act on.

    The message is for our log; a user is told an id.
    """

    ours = True


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: no mistake, and nothing that an op is to blame for."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in ("bad_alloc", "memory"))


class Unsupported(CompressError):
    """A case that the op's row does not cover. The channel groups it touches are frozen with this reason."""


class TrainingDiverged(CompressError):
    """The loss of a training step is not a finite number.

    Args:
        epoch, step: where it happened, both from 0.
        loss: the value seen.
    """

    def __init__(self, epoch: int, step: int, loss: float) -> None:
        super().__init__(f"training diverged: loss {loss} in epoch {epoch}, step {step}; a smaller lr may help")
        self.epoch = epoch
        self.step = step
        self.loss = loss
