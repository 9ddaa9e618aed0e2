"""The child process of service.uploads.sandbox, which reads one order from stdin and writes one JSON object to
stdout.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw_profiles import lifeline
from service.errors import REFUSALS
from service.files.data_folder import is_full

# Audit events of actions that no check needs: using the network, starting programs, and running code hidden in a
# pickle.
FORBIDDEN = frozenset(
    {
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.sendto",
        "subprocess.Popen",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "pickle.find_class",
    }
)
MAX_MESSAGE = 1000
MAX_TRACE = 8000
ROOT = Path(__file__).parents[3]


def main() -> None:
    """Limit this process, run the task and report its result."""
    # Libraries may print, and their output must not be mistaken for the report.
    out = lifeline.claim_stdout()
    order = json.loads(sys.stdin.buffer.readline())
    _limit(order["limits"])
    sys.addaudithook(_guard)
    lifeline.watch_parent(lifeline.leave)
    with out:
        out.write(_answer(order["task"], order["request"]))
    # Skips the interpreter's normal exit, in which threads of native libraries may hang.
    os._exit(0)


def _answer(task: str, request: Mapping[str, Any]) -> str:
    try:
        return _encoded({"result": importlib.import_module(f"service.uploads.checks.{task}").run(request)})
    except Exception as error:  # the parent reports the error to the user
        if isinstance(error, REFUSALS):
            value, message = _shown(error.value), _without_paths(error.message, request)
            return _encoded({"invalid": {"field": error.field, "message": message, "value": value}})
        if is_full(error):
            return _encoded({"full": True})
        if _is_ours(error):
            return _encoded({"broken": "".join(traceback.format_exception(error))[-MAX_TRACE:]})
        return _encoded({"failed": _without_paths(f"{type(error).__name__}: {error}", request)})


def _without_paths(text: str, request: Mapping[str, Any]) -> str:
    """Truncate a library's text and remove this machine's paths, which clients must not see."""
    paths = {value: name for name, value in request.items() if isinstance(value, str) and value.startswith("/")}
    for path in sorted(paths, key=len, reverse=True):
        text = text.replace(path, f"<{paths[path]}>")
    return text.replace(os.getcwd(), "<folder>")[:MAX_MESSAGE]


def _is_ours(error: Exception) -> bool:
    """Return True if Netlathe's code, not the file, is at fault: a Mistake, a failed import, or a missing name in this
    code.

    The same errors raised inside a library are blamed on the file, which made the library fail.
    """
    if getattr(error, "ours", False):  # compress.errors.Mistake
        return True
    if isinstance(error, ImportError):  # other import errors come from a lack of memory, caused by the file
        return isinstance(error, ModuleNotFoundError) or "cannot import name" in str(error)
    if not isinstance(error, AttributeError | NameError) or error.__traceback__ is None:
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return Path(frame.f_code.co_filename).is_relative_to(ROOT) and "site-packages" not in frame.f_code.co_filename


def _encoded(answer: Mapping[str, Any]) -> str:
    return json.dumps(answer, allow_nan=False)


def _shown(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value[:20]]
    return value if value is None or isinstance(value, bool | int | str) else str(value)[:MAX_MESSAGE]


def _limit(limits: Mapping[str, Any]) -> None:
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_AS, int(limits["memory_bytes"]))
    _lower(resource.RLIMIT_CPU, int(limits["cpu_s"]))
    _lower(resource.RLIMIT_FSIZE, int(limits["file_bytes"]))


def _lower(kind: int, wanted: int) -> None:
    _, most = resource.getrlimit(kind)
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    # The hard limit on CPU time is one second above the soft limit, at which SIGXCPU tells the parent what happened.
    hard = limit + 1 if kind == resource.RLIMIT_CPU and most == resource.RLIM_INFINITY else limit
    resource.setrlimit(kind, (limit, hard))


def _guard(event: str, _arguments: tuple[object, ...]) -> None:
    if event in FORBIDDEN:
        raise PermissionError(f"{event} is not allowed while a file is checked")


if __name__ == "__main__":
    main()
