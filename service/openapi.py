"""The OpenAPI document, as committed in docs/openapi.json.

python -m service.openapi      writes the document; a test compares it with the committed document
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from service.app import create_app
from service.settings import Settings

PATH = Path(__file__).parent.parent / "docs" / "openapi.json"


def document() -> str:
    """Return the document for the routes in this code. Its text changes only if the routes change."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder)))
        found = app.openapi()
        app.state.netlathe.store.close()
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the document."""
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(document())
    sys.stdout.write(f"{PATH}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
