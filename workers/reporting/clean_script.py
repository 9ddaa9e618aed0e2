"""Run an ONNX file on images with only numpy and onnxruntime, as on a device without Netlathe.

    python -I clean_script.py model.onnx images.npy BATCH SCORED OUTPUTS

SCORED is the key of the file's metadata that names the output to judge; without this key, the first output is judged.
OUTPUTS is the .npy file to which the values of this output are written. The script prints one line of JSON.
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
    """Read the arguments, run the file, print the JSON."""
    model, images_file, batch, scored, outputs_file = sys.argv[1:]
    images = np.load(images_file, mmap_mode="r", allow_pickle=False)
    content = Path(model).read_bytes()
    _run(content, images, int(batch), scored, outputs_file)
    loaded = OURS & {name.split(".")[0] for name in sys.modules}
    if loaded:
        raise SystemExit(f"this process is not clean: it imported {', '.join(sorted(loaded))}")
    found = {"count": len(images), "sha256": hashlib.sha256(content).hexdigest()}
    sys.stdout.write(json.dumps({**found, "onnxruntime": onnxruntime.__version__}) + "\n")


def _run(content: bytes, images: Any, batch: int, scored: str, outputs_file: str) -> None:
    """Write the outputs (N, ...) for float32 images (N, channels, height, width), one batch at a time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    output = session.get_modelmeta().custom_metadata_map.get(scored) or session.get_outputs()[0].name
    file: Any = None
    for start in range(0, len(images), batch):
        made = np.asarray(session.run([output], {name: np.array(images[start : start + batch])})[0])
        if file is None:
            shape = (len(images), *made.shape[1:])
            file = np.lib.format.open_memmap(outputs_file, mode="w+", dtype=made.dtype, shape=shape)
        file[start : start + batch] = made
    file.flush()


if __name__ == "__main__":
    main()
