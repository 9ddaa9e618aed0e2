"""The runtime `onnxruntime`."""

from hw_profiles.runtimes.onnxruntime.engine import RUNTIME

__all__ = ["RUNTIME"]
