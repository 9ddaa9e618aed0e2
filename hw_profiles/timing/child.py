"""The process in which models are timed, taken apart or converted. If it crashes or hangs, only its batch is lost.

It reads one line of JSON (its task) from stdin, loads the engine, answers `ready`, waits for the line `go`, and writes
one JSON object per line: `progress`, then a `sample`, `fused`, `checked` or a `failure` for each model, then `end`. It
ends when stdin closes, because its parent is gone. What the engine prints goes to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from hw_profiles import lifeline, runtimes
from hw_profiles.device import DeviceConfig
from hw_profiles.runtimes import Runtime
from hw_profiles.timing.batch import MODEL, SAMPLES
from hw_profiles.timing.conversion import conversion
from hw_profiles.timing.file_timing import time_files, why
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from hw_profiles.wire.arrays import pack, unpack


def main() -> None:
    """Do the task that stdin describes."""
    answers = lifeline.claim_stdout()
    wanted = json.loads(sys.stdin.readline())
    device = DeviceConfig.from_json(wanted["device"])
    runtime = runtimes.load(device.runtime)
    runtime.version()  # imports the engine
    _say(answers, {"ready": True})
    if sys.stdin.readline() != "go\n":
        sys.exit(lifeline.ORPHANED)
    lifeline.watch_parent(lifeline.leave)
    paths = {key: Path(path) for key, path in wanted["models"].items()}
    if wanted["task"] == "fuse":
        _fuse(answers, runtime, paths)
    elif wanted["task"] == "check":
        _check(answers, runtime, device, paths)
    else:
        protocol = BurstProtocol(**wanted["protocol"])
        timed = time_files(runtime, paths, device, protocol, lambda *seen: _progress(answers, *seen))
        for key, result in timed.items():
            _say(answers, _answer(key, result))
    _say(answers, {"end": True})


def _fuse(answers: TextIO, runtime: Runtime, paths: Mapping[str, Path]) -> None:
    for done, (key, path) in enumerate(paths.items(), 1):
        try:
            sets = runtime.fused(path.read_bytes())
        except Exception as error:  # the engines share no error class; the reason is sent to the caller
            _say(answers, _answer(key, Failure(key, why(error))))
        else:
            _say(answers, {"fused": {"key": key, "sets": [sorted(names) for names in sets]}})
        _progress(answers, done, len(paths))


def _check(answers: TextIO, runtime: Runtime, device: DeviceConfig, paths: Mapping[str, Path]) -> None:
    keys = [key for key in paths if key.endswith(f"/{MODEL}")]
    for done, key in enumerate(keys, 1):
        samples = paths[key.removesuffix(MODEL) + SAMPLES]
        try:
            made = conversion(runtime, paths[key].read_bytes(), unpack(samples.read_bytes()), device)
            packed = pack(made.outputs)
        except Exception as error:  # the engines share no error class; the reason is sent to the caller
            _say(answers, _answer(key, Failure(key, why(error))))
        else:
            file, outputs = (paths[key].with_name(f"{paths[key].stem}-{samples.stem}.{end}") for end in ("file", "out"))
            file.write_bytes(made.file)
            outputs.write_bytes(packed)
            _say(answers, {"checked": {"key": key, "file": str(file), "outputs": str(outputs)}})
        _progress(answers, len(paths) * done // len(keys), len(paths))


def _progress(answers: TextIO, done: int, total: int) -> None:
    _say(answers, {"progress": [done, total]})


def _answer(key: str, result: Sample | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"failure": {"key": key, "reason": result.reason, "kind": result.kind}}
    plain: Mapping[str, Any] = {
        "key": key,
        "minima_us": list(result.minima_us),
        "medians_us": list(result.medians_us),
        "extra": dict(result.extra),
    }
    return {"sample": plain}


def _say(answers: TextIO, message: Mapping[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
