"""Errors of this folder.

CompressError
├── InvalidInput (ValueError)   the user's input is wrong: field, value, what to do
│   ├── Disagreement            torch and onnxruntime differ: names the first such node
│   └── NotTheSame              an edit of a network, which should change no output, changes one
├── Mistake                     a bug: our code fails on input that may be right; a user cannot act on it
├── Unsupported                 a case that a row of the op table does not cover; its channels are frozen
└── TrainingDiverged            the loss of a training step is not a finite number
"""

from __future__ import annotations


class CompressError(Exception):
    """Base of all errors raised by compress."""


class InvalidInput(CompressError, ValueError):
    """The user's input is wrong.

    Args:
        field: the name of the field of the request or file.
        value: the value seen, short enough to print.
        message: what is wrong and what would be right, for the user.
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
        difference: largest absolute difference, divided by the scale of the output.
        tolerance: the largest difference that would have been accepted.
    """

    def __init__(self, node: str, op_type: str, difference: float, tolerance: float) -> None:
        message = (
            f"Netlathe computes different outputs for this file than onnxruntime, first at node {node!r} ({op_type}): "
            f"difference {difference:.2e} of the output's scale, tolerance {tolerance:.0e}"
        )
        super().__init__("file", node, message)
        self.node = node
        self.difference = difference


class NotTheSame(InvalidInput):
    """An edit of a network, which should change no output, changes one by more than rounding."""


class Mistake(CompressError):
    """Our code fails on an input that may be right: a bug that a user cannot do anything about.

    The message is for the log; the user gets an id.
    """

    ours = True


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out. This is neither a bug nor the fault of an op."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in ("bad_alloc", "memory"))


class Unsupported(CompressError):
    """A case that the op's row does not cover. The channel groups that the op touches are frozen for this reason."""


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
