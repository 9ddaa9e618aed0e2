"""A conductor in a process of its own, with a slow search in the place of the real run: `... DATA_DIR`."""

from __future__ import annotations

import functools
import sys
import threading
from pathlib import Path

from job_worlds import search

from service.conducting.conductor import Conductor
from service.files.blobs import Blobs
from service.settings import Settings
from service.store import Store, make_engine

if __name__ == "__main__":
    settings = Settings(data_dir=Path(sys.argv[1]), lease_s=1.0, renew_s=0.2)
    store = Store(make_engine(settings.url))
    conductor = Conductor(settings, store, Blobs(settings.data_dir), threading.Event())
    conductor.work(lambda: functools.partial(search, pause_s=0.05))
