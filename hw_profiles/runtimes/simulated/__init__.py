"""The runtime `simulated`."""

from hw_profiles.runtimes.simulated.engine import RUNTIME

__all__ = ["RUNTIME"]
