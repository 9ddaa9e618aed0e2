"""Exit codes of an agent."""

from __future__ import annotations

DONE = 0
USAGE = 2
"""Something must be set up first: a runtime or an enrolment token."""
FAILED = 3
"""The server refuses this agent: an upgrade or a new enrolment is needed."""
