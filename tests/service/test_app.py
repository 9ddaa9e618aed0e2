"""The application as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_server_comes_up_without_torch(tmp_path: Path) -> None:
    """Ready within seconds: what is heavy comes with the first request that needs it."""
    program = (
        "import sys; from service.app import create_app; from service.settings import Settings;"
        "import service.processes.serve;"
        f"create_app(Settings(data_dir={str(tmp_path)!r}));"
        "print([name for name in ('torch', 'onnxruntime', 'sklearn', 'ray') if name in sys.modules])"
    )
    root = Path(__file__).parent.parent.parent
    ran = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_strategies_are_known_and_made_without_torch() -> None:
    """The API checks every job against them; a strategy that learns imports what it learns with when it is asked."""
    program = (
        "import sys; from service.jobs import catalogue; from search.synthetic.replay import make_replay\n"
        "families = catalogue.strategies().values()\n"
        "assert families\n"
        "print([name for name in ('torch', 'sklearn', 'optuna', 'ray') if name in sys.modules])\n"
        "[family.make(make_replay(0).problem, family.settings(), 0) for family in families]\n"
        "print([name for name in ('torch', 'ray') if name in sys.modules])"
    )
    root = Path(__file__).parent.parent.parent
    ran = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[:2] == ["[]", "[]"]
