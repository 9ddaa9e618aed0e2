"""Check every label and every pixel of an uploaded data set, and keep a decoded copy for later jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.data.dataset import PARTS, inspect_dataset
from compress.data.split import check_enough, counts_after_draw


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Map `{path, digest, layout, classes, cache}` to counts, classes, class_names, image_shape and warnings.

    The counts include those parts that are drawn from train because the file lacks them.

    Raises:
        InvalidInput: the file has a fault.
    """
    summary = inspect_dataset(
        Path(request["path"]),
        layout=request["layout"],
        classes=request["classes"],
        cache=Path(request["cache"]),
        digest=request["digest"],
    )
    check_enough(summary.counts["train"], [part for part in PARTS if part not in summary.counts])
    after = counts_after_draw(summary.counts)
    drawn = [part for part in after if part not in summary.counts]
    warnings = [f"no {part} part: {after[part]} images are drawn from train by the job's seed" for part in drawn]
    return {
        "counts": after,
        "classes": summary.classes,
        "class_names": list(summary.class_names),
        "image_shape": None if summary.image_shape is None else list(summary.image_shape),
        "target_shape": list(summary.target_shape),
        "warnings": [*summary.warnings, *warnings],
    }
