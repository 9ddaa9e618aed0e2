"""The search space: knobs and their values. The package `compress` also declares its settings with this package."""

from search.errors import InvalidInput
from search.space.knob import Choice, Features, Float, Int, Knob, Levelled, Role, Subset, Value
from search.space.settings import Bounds, Doc, check_settings
from search.space.space import Space, Values

__all__ = [
    "Bounds",
    "Choice",
    "Doc",
    "Features",
    "Float",
    "Int",
    "InvalidInput",
    "Knob",
    "Levelled",
    "Role",
    "Space",
    "Subset",
    "Value",
    "Values",
    "check_settings",
]
