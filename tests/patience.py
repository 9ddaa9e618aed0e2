"""How long tests wait for what must come true: long, because that only guards against hanging on a busy machine."""

from __future__ import annotations

PATIENCE_S = 120.0
