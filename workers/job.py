"""run: one job from a plan to an outcome; the phases of design section 3, each resumable."""

from __future__ import annotations

from workers.plan import JobPlan
from workers.ports import Outcome, Ports, Recorded

__all__ = ["JobPlan", "Outcome", "Ports", "Recorded"]
