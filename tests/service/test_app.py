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
