"""Layer errors: the error that each level of a knob causes in the layers behind it, from the material's statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.space import Choice, Space
from workers.evaluating.evaluation_files import Material


def layer_errors(space: Space, material: Material) -> dict[str, NDArray[np.float64]]:
    """Map each knob that has them to (levels,) errors.

    For a width knob, these are the errors in the layers that read the knob's block, after these layers are refitted.
    The other errors are those that methods offer themselves.
    """
    known = material.ls_error
    widths = {
        knob.name: known[knob.name][np.array(knob.options, dtype=np.int64)]
        for knob in space.knobs
        if isinstance(knob, Choice) and knob.role == "width" and knob.name in known
    }
    return {**material.known.get("ls_error", {}), **widths}
