"""Start: a trained network, its data and a device, from which every entrant of a race starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import resnet20
from numpy.typing import NDArray

from hw_profiles.device import DeviceConfig
from hw_profiles.runtimes import Runtime, load
from hw_profiles.timing.protocol import BurstProtocol
from workers.plan import Augment, Effort

Labelled: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.int64]]"


@dataclass(frozen=True)
class Start:
    """`model` and `data` are the bytes of the uploads; `test` returns the preprocessed test images and their labels,
    which are read only once a winner is named. `unseen` is the first test image that took no part in the choice.

    `epochs` is the length of the final recipe; `whole` is the protocol by which whole networks are timed.
    """

    name: str
    model: bytes
    data: bytes
    data_name: str
    runtime: Runtime
    test: Callable[[], Labelled]
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    effort: Effort = field(default_factory=Effort)
    kernels: BurstProtocol = field(default_factory=BurstProtocol)
    whole: BurstProtocol = field(default_factory=lambda: BurstProtocol(min_rounds=40, max_rounds=40))
    step: BurstProtocol = field(default_factory=lambda: BurstProtocol(min_rounds=20))
    epochs: int = 2
    augment: Augment = "auto"
    unseen: int = 0

    @property
    def device(self) -> DeviceConfig:
        """The device: this machine with one thread, or the only simulated one."""
        return next(each for each in self.runtime.configs("bench") if each.threads == 1)


def cifar() -> Start:
    """Return ResNet-20 on CIFAR-10 in onnxruntime; the first 2,000 test images are the validation images."""
    return Start(
        name="resnet20",
        model=resnet20.model_path().read_bytes(),
        data=resnet20.shared("cifar10-small.parquet").read_bytes(),
        data_name="cifar10-small.parquet",
        runtime=load(resnet20.RUNTIME),
        test=_all_test_images,
        preprocessing=resnet20.PREPROCESSING,
        unseen=resnet20.SPLITS["validation"].stop,
    )


def _all_test_images() -> Labelled:
    parts = [resnet20.official(split) for split in resnet20.SPLITS]
    images, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    return images, labels


def folder_of(work: Path, start: Start, *names: object) -> Path:
    """Return a folder for files that are not committed."""
    path = work.joinpath(start.name, "-".join(map(str, names)))
    path.mkdir(parents=True, exist_ok=True)
    return path
