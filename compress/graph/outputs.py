"""Choice of the scored output of a network (one score per class); the other outputs are kept as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from compress.errors import InvalidInput
from compress.network import SCORED, Network
from compress.task import Shapes, TargetKind, Task

if TYPE_CHECKING:
    import onnxruntime


def output_shapes(network: Network) -> Shapes:
    """Return the shapes of a network's outputs."""
    return {name: kind.shape[1:] for name, kind in network.outputs.items()}


def check_output(shapes: Shapes, name: str) -> None:
    """Check that the output of this name can be scored.

    Raises:
        InvalidInput: there is no such output, or it is not one score per class.
    """
    if name not in shapes:
        raise InvalidInput("output", name, f"the network has no such output; it has {', '.join(shapes)}")
    if name not in _widths(shapes):
        shown = _shown(shapes, [name])
        raise InvalidInput("output", name, f"must have one score per class, (batch, classes), but is {shown}")


def scored_at_upload(shapes: Shapes) -> str | None:
    """Return the only output that can be scored; None if there is none, or if a data set's class count will decide.

    Raises:
        InvalidInput: two possible outputs have the same width, so that no data set can decide between them.
    """
    widths = _widths(shapes)
    alike = [name for name in widths if list(widths.values()).count(widths[name]) > 1]
    if alike:
        raise _ask(shapes, alike, "output", alike)
    return next(iter(widths)) if len(widths) == 1 else None


def scored_for(shapes: Shapes, classes: int, model: str | None = None) -> str:
    """Return the output that holds the scores of this many classes; `model` is the network's name, for the error.

    Raises:
        InvalidInput: no output fits, or several do.
    """
    widths = _widths(shapes)
    if not widths:
        wanted = f"no output of the model has one score per class, (batch, classes): {_shown(shapes, shapes)}"
        raise InvalidInput("model", model, wanted)
    if len(widths) == 1:
        return next(iter(widths))
    exact = [name for name, width in widths.items() if width == classes]
    fitting = exact or [name for name, width in widths.items() if width > classes]
    if len(fitting) != 1:
        raise _ask(shapes, fitting or list(widths), "model", model)
    return fitting[0]


def decided(network: Network, asked: str | None, task: Task, targets: TargetKind) -> Network:
    """Return the network with its scored output set to the one that the task scores against these targets.

    `asked`: the output that the user named, if any.

    Raises:
        InvalidInput: `Task.check` refuses the output.
    """
    return network.scoring(task.check(output_shapes(network), asked or network.scored, targets))


def scored_of(session: onnxruntime.InferenceSession) -> str:
    """Return the scored output of a file that `Network.save` wrote."""
    said = session.get_modelmeta().custom_metadata_map.get(SCORED)
    return said or str(session.get_outputs()[0].name)


def _widths(shapes: Shapes) -> dict[str, int]:
    return {name: shape[0] for name, shape in shapes.items() if len(shape) == 1 and shape[0] > 1}


def _ask(shapes: Shapes, names: list[str], field: str, value: object) -> InvalidInput:
    how = "say which as `output`" if field == "output" else "say which as `output` when the model is uploaded"
    wanted = f"more than one output could be the scores of the classes, {_shown(shapes, names)}: {how}"
    return InvalidInput(field, value, wanted)


def _shown(shapes: Shapes, names: Mapping[str, object] | list[str]) -> str:
    return ", ".join(f"{name} ({', '.join(['batch', *map(str, shapes[name])])})" for name in names)
