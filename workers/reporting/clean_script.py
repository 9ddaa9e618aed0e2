"""Count the images that an ONNX file classifies correctly, with only numpy and onnxruntime, as on a device without
Netlathe.

    python -I clean_script.py model.onnx images.npy labels.npy BATCH SCORED LOGITS

SCORED: the key of the file's metadata that names the output to judge; without it, the first one. LOGITS: the file to
write the outputs of the first batch to. Prints one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

OURS = {"netlathe", "service", "workers", "compress", "search", "hw_profiles"}


def main() -> None:
    """Read the arguments, check the file, print the JSON."""
    model, images_file, labels_file, batch, scored, logits_file = sys.argv[1:]
    images = np.load(images_file, mmap_mode="r", allow_pickle=False)
    labels = np.load(labels_file, allow_pickle=False)
    content = Path(model).read_bytes()
    right = _right(content, images, labels, int(batch), scored, logits_file)
    loaded = OURS & {name.split(".")[0] for name in sys.modules}
    if loaded:
        raise SystemExit(f"this process is not clean: it imported {', '.join(sorted(loaded))}")
    found = {"right": right, "count": len(labels), "sha256": hashlib.sha256(content).hexdigest()}
    sys.stdout.write(json.dumps({**found, "onnxruntime": onnxruntime.__version__}) + "\n")


def _right(content: bytes, images: Any, labels: Any, batch: int, scored: str, logits_file: str) -> int:
    """Return how many images, (N, channels, height, width) float32, have their label as the largest output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    output = session.get_modelmeta().custom_metadata_map.get(scored) or session.get_outputs()[0].name
    right = 0
    for start in range(0, len(images), batch):
        logits = np.asarray(session.run([output], {name: np.array(images[start : start + batch])})[0])
        if start == 0:
            np.save(logits_file, logits)
        right += int((logits.reshape(len(logits), -1).argmax(1) == labels[start : start + batch]).sum())
    return right


if __name__ == "__main__":
    main()
