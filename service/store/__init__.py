"""The store: one file per table with its functions. Importing this package imports all these files."""

from search.discovery import modules
from service.store.base import Base, Tx, new_id
from service.store.engine import Store, make_engine

__all__ = ["Base", "Store", "Tx", "make_engine", "new_id"]

for _module in modules(__name__, skip=["migrations"]):
    """Each module adds its tables to `Base.metadata`."""
