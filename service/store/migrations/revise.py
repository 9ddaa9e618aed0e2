"""Write a migration that turns the tables made by the migrations so far into the tables in the code.

python -m service.store.migrations.revise "agents report their load"
python -m service.store.migrations.revise --first      # before the first release: rewrite the only migration
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command

from service.store.engine import make_engine
from service.store.migrate import configuration, migrate

VERSIONS = Path(__file__).parent / "versions"
SEED = '    op.execute("INSERT INTO event_numbers (id, newest) VALUES (1, 0)")\n'


def revise(message: str, number: str) -> Path:
    """Write `versions/<number>_<message>.py`; review it before committing it."""
    config = configuration()
    with tempfile.TemporaryDirectory() as folder:
        engine = make_engine(f"sqlite:///{folder}/empty.db")
        if any(VERSIONS.glob("*.py")):
            migrate(engine)
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.revision(config, message, autogenerate=True, rev_id=number)
        engine.dispose()
    return next(VERSIONS.glob(f"{number}_*.py"))


def rewrite_first() -> Path:
    """Replace the only migration with a migration that makes all tables."""
    for path in VERSIONS.glob("*.py"):
        path.unlink()
    path = revise("first tables", "0001")
    text = path.read_text()
    path.write_text(text.replace("\n\n\ndef downgrade", "\n" + SEED + "\n\ndef downgrade", 1))
    return path


def main(arguments: list[str]) -> int:
    """Run the command line of this module."""
    if len(arguments) != 1:
        sys.stderr.write(__doc__ or "")
        return 2
    count = len(list(VERSIONS.glob("*.py")))
    path = rewrite_first() if arguments[0] == "--first" else revise(arguments[0], f"{count + 1:04d}")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(path)], check=True)
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
