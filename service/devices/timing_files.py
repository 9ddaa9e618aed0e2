"""The ONNX files that agents time. A block's files are built on request; the same op always gives the same bytes.

Blocks have random weights, so storing thousands of such files would only fill up the volume.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache

from hw_profiles.ops import Op
from hw_profiles.timing.copies_timing import slope_models

HELD = 4
"""Number of blocks whose files stay in memory, because an agent asks for a block's two files one after the other."""


def digests(op: Op) -> tuple[str, str]:
    """Return the sha256 of a block's two timing models: the model with many copies and the model with one copy.

    Raises:
        InvalidInput: the op cannot be modelled.
    """
    single, many = slope_models(op)
    return hashlib.sha256(many).hexdigest(), hashlib.sha256(single).hexdigest()


def block_file(op: Op, sha256: str) -> bytes:
    """Return the block's timing model that has this digest.

    Raises:
        LookupError: this version builds a different file, because the lease comes from an older version.
    """
    for content in _files(json.dumps(op.to_json())):
        if hashlib.sha256(content).hexdigest() == sha256:
            return content
    raise LookupError(f"block {op.key} has no file {sha256}")


@lru_cache(maxsize=HELD)
def _files(op: str) -> tuple[bytes, bytes]:
    return slope_models(Op.from_json(json.loads(op)))
