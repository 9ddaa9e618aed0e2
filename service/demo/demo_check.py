"""Re-check a result in a clean process: onnxruntime and numpy alone, as on the device of somebody without Netlathe.

    python -I demo_check.py data.npz scale mean std file.onnx...

Prints one line of JSON: for each file its sha256, and how many images of each part it classifies rightly.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

PARTS = ("val", "test")
OURS = {"netlathe", "service", "workers", "compress", "search", "hw_profiles"}


def count_right(model: bytes, images: Any, labels: Any) -> int:
    """How many images, (N, channels, height, width) float32, have their label as the largest output."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    logits = session.run(None, {session.get_inputs()[0].name: images})[0]
    return int((np.asarray(logits).argmax(axis=1) == labels).sum())


def main() -> None:
    """Read the arguments, check the files, print the JSON."""
    data_file, scale, mean, std, *files = sys.argv[1:]
    data = np.load(data_file, allow_pickle=False)
    answer: dict[str, dict[str, Any]] = {}
    for file in files:
        model = Path(file).read_bytes()
        found: dict[str, Any] = {"sha256": hashlib.sha256(model).hexdigest()}
        for part in PARTS:
            images = (data[f"x_{part}"].astype(np.float32) * float(scale) - float(mean)) / float(std)
            labels = data[f"y_{part}"]
            right = count_right(model, images.astype(np.float32).transpose(0, 3, 1, 2), labels)
            found[part] = {"right": right, "count": len(labels)}
        answer[file] = found
    loaded = OURS & {name.split(".")[0] for name in sys.modules}
    if loaded:
        raise SystemExit(f"this process is not clean, it has imported {', '.join(sorted(loaded))}")
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
