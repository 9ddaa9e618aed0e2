"""The store: one file a table with its functions. Importing this package imports all of them."""

import importlib
import pkgutil

from service.store.base import Base, Store, Tx, make_engine, new_id

for _module in pkgutil.iter_modules(__path__):
    if not _module.ispkg:
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Base", "Store", "Tx", "make_engine", "new_id"]
