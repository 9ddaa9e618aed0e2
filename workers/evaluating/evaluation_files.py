"""Material: the files that evaluators work with, written once per job on the volume that all workers see.

A worker opens the files by path. Arrays are memory-mapped, so that ten children share one copy of the images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing
from compress.evidence import Evidence
from compress.graph.groups import prunable_blocks
from compress.importing.normalise import load_network
from compress.network import Network
from compress.pruning.layer_error import ls_error
from compress.pruning.statistics import Statistics
from compress.scheme import Scheme
from compress.task import Task
from compress.tasks import DEFAULT, load
from workers.errors import InvalidInput
from workers.evaluating.passes import Passes
from workers.evaluating.scores import Images, Labels
from workers.problem.sensitivity import Sensitivity
from workers.running import durable

_DONE = "material.json"


@dataclass(frozen=True)
class Material:
    """A folder with the working network, images and statistics. This object is picklable and reads the files lazily.

    `methods` has (name, settings) pairs in the scheme's order; `task_name` is the name of the job's task.
    """

    folder: Path
    methods: tuple[tuple[str, Mapping[str, Any]], ...]
    task_name: str = DEFAULT

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: workers read the files themselves, whatever this process has read of them."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @cached_property
    def task(self) -> Task:
        """The job's task."""
        return load(self.task_name)

    @cached_property
    def network(self) -> Network:
        """The uncut network, in the form from which candidates are cut."""
        return load_network(self.folder / "network.onnx")

    @cached_property
    def scheme(self) -> Scheme:
        """The job's methods."""
        return Scheme.of(self.methods)

    @cached_property
    def ranking(self) -> tuple[Images, Labels]:
        """Preprocessed validation images (N, *input_shape) and labels (N, ...), on which F2 scores candidates."""
        return self._array("ranking_images"), self._array("ranking_labels")

    @cached_property
    def reference(self) -> Images:
        """Preprocessed training images (N, *input_shape), used for batch norms, statistics and int8 ranges."""
        images: Images = self._array("reference_images")
        return images

    @cached_property
    def passes(self) -> Passes:
        """The way in which candidates are run; the plain way if none was measured."""
        file = self.folder / "passes.json"
        return Passes.from_json(json.loads(file.read_text())) if file.exists() else Passes()

    @cached_property
    def evidence(self) -> Evidence:
        """The evidence that the methods may use."""
        moments = self._mapping("statistics")
        statistics = Statistics.from_arrays(moments) if moments else None
        return Evidence(self.reference, self._mapping("importance"), statistics=statistics)

    @cached_property
    def known(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """The results that the methods offer to strategies, as name -> block or knob -> array; the methods choose the
        names.
        """
        names: list[str] = json.loads(self._known.read_text()) if self._known.exists() else []
        return {name: self._mapping(f"known-{i}") for i, name in enumerate(names)}

    @property
    def _known(self) -> Path:
        return self.folder / "known.json"

    @cached_property
    def sensitivity(self) -> dict[str, NDArray[np.float64]]:
        """Map of each knob to (levels,) scores: the score at each level of this knob if no other knob is changed. The
        map is empty before the measurement.
        """
        return self._mapping("sensitivity") if (self.folder / "sensitivity.json").exists() else {}

    @cached_property
    def ls_error(self) -> dict[str, NDArray[np.float64]]:
        """Map of each block to (width + 1,) errors in the layers that read the block, indexed by the number of units
        kept. Computing the map takes a tenth of a second.

        The map is empty if the methods gather no statistics.
        """
        evidence = self.evidence
        if evidence.statistics is None:
            return {}
        blocks = [block for block in prunable_blocks(self.network) if block.name in evidence.importance]
        return ls_error(self.network, blocks, evidence.statistics, evidence.importance)

    @property
    def looked(self) -> dict[str, NDArray[np.bool_]]:
        """Map of each knob to (levels,), true if the score at this level was evaluated, false if it is inferred."""
        return self._mapping("looked") if (self.folder / "looked.json").exists() else {}

    def write_sensitivity(self, found: Mapping[str, Sensitivity]) -> Path:
        """Add the sensitivities; return the path of the file that marks them as complete."""
        self._save_mapping("looked", {name: each.looked for name, each in found.items()})
        return self._save_mapping("sensitivity", {name: each.scores for name, each in found.items()})

    @property
    def complete(self) -> bool:
        """True if everything has been written."""
        return (self.folder / _DONE).exists()

    @cached_property
    def short(self) -> tuple[Part, Preprocessing]:
        """Training images as stored, for short distillations, and their preprocessing."""
        return self._part("short")

    @cached_property
    def training(self) -> tuple[Part, Preprocessing]:
        """Training images and preprocessing for full training runs; these are the images of `short` if no other images
        were written.
        """
        return self._part("training" if self._file("training_images").exists() else "short")

    def keep(self, network: Network, epochs: int, units: Mapping[str, Sequence[int]] | None = None) -> str:
        """Store a network that was trained for `epochs` epochs, so that `kept` can return the network; return its
        digest.

        Args:
            units: block name -> the units that are left, for the blocks whose other units are zero.
        """
        path = self._network_path(network.digest)
        path.parent.mkdir(exist_ok=True)
        left = {name: [int(unit) for unit in each] for name, each in (units or {}).items()}
        durable.write(path.with_suffix(".json"), json.dumps({"epochs": epochs, "units": left}).encode())
        durable.write(path, network.save())
        return network.digest

    def has(self, digest: str) -> bool:
        """Return True if the network of this digest is stored."""
        return bool(re.fullmatch("[0-9a-f]{64}", digest)) and self._network_path(digest).exists()

    def epochs(self, digest: str) -> int:
        """Return the epochs that a stored network was trained for, including the epochs of the networks that it started
        from.

        Raises:
            InvalidInput: see `kept`.
        """
        return int(self._facts(digest)["epochs"])

    def units(self, digest: str) -> dict[str, NDArray[np.int64]]:
        """Return block name -> the units that are left in a stored network, for the blocks whose other units are zero.

        Raises:
            InvalidInput: see `kept`.
        """
        left = self._facts(digest).get("units", {})
        return {name: np.array(units, dtype=np.int64) for name, units in left.items()}

    def kept(self, digest: str) -> Network:
        """Return the network of this digest.

        Raises:
            InvalidInput: no such network is stored.
        """
        if not self.has(digest):
            raise InvalidInput("weights_from", digest, "no network with this digest is stored")
        return load_network(self._network_path(digest))

    def _facts(self, digest: str) -> dict[str, Any]:
        if not self.has(digest):
            raise InvalidInput("weights_from", digest, "no network with this digest is stored")
        found: dict[str, Any] = json.loads(self._network_path(digest).with_suffix(".json").read_text())
        return found

    def checkpoint(self, key: str) -> Path:
        """Return the path of the checkpoint of the full training run with this key. If its worker is lost, the run
        resumes from this checkpoint.
        """
        path = self.folder / "trainings" / f"{key}.safetensors"
        path.parent.mkdir(exist_ok=True)
        return path

    def _network_path(self, digest: str) -> Path:
        return self.folder / "networks" / f"{digest}.onnx"

    def _part(self, name: str) -> tuple[Part, Preprocessing]:
        part = Part(self._array(f"{name}_images"), self._array(f"{name}_labels"))
        return part, Preprocessing.from_json(json.loads((self.folder / "preprocessing.json").read_text()))

    def write(
        self,
        network: Network,
        ranking: tuple[Images, Labels],
        reference: Images,
        evidence: Evidence,
        short: Part,
        preprocessing: Preprocessing,
        training: Part | None = None,
        passes: Passes | None = None,
    ) -> Path:
        """Write every file, and finally a file that marks them as complete; return the path of this mark.

        Args:
            training: images that F4 trains on; if None, F4 uses the images of `short`.
            passes: the way in which candidates are run; if None, the plain way.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "network.onnx").write_bytes(network.save())
        whole = () if training is None else (("training_images", training.images), ("training_labels", training.labels))
        for name, array in (
            *whole,
            ("ranking_images", ranking[0]),
            ("ranking_labels", ranking[1]),
            ("reference_images", reference),
            ("short_images", short.images),
            ("short_labels", short.labels),
        ):
            np.save(self._file(name), array)
        (self.folder / "preprocessing.json").write_text(json.dumps(preprocessing.to_json()))
        (self.folder / "passes.json").write_text(json.dumps((passes or Passes()).to_json()))
        self._save_mapping("importance", evidence.importance)
        self._save_mapping("statistics", evidence.statistics.to_arrays() if evidence.statistics else {})
        for i, arrays in enumerate(evidence.known.values()):
            self._save_mapping(f"known-{i}", arrays)
        self._known.write_text(json.dumps(list(evidence.known)))
        mark = self.folder / _DONE
        mark.write_text(json.dumps({"network": network.digest, "images": len(ranking[1])}))
        return mark

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _array(self, name: str) -> NDArray[Any]:
        # The map is copy-on-write, so all workers share it and torch can wrap it without a warning.
        array: NDArray[Any] = np.load(self._file(name), mmap_mode="c", allow_pickle=False)
        return array

    def _save_mapping(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> Path:
        # Files are numbered, because keys are tensor names, which may contain any character.
        for i, array in enumerate(arrays.values()):
            np.save(self._file(f"{name}-{i}"), array)
        listing = self.folder / f"{name}.json"
        listing.write_text(json.dumps(list(arrays)))
        return listing

    def _mapping(self, name: str) -> dict[str, NDArray[Any]]:
        keys: list[str] = json.loads((self.folder / f"{name}.json").read_text())
        return {key: self._array(f"{name}-{i}") for i, key in enumerate(keys)}
