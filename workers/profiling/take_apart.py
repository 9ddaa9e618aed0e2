"""Takes a network apart into its kernels, with few enough levels per knob that every kernel's table stays small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.evidence import Evidence
from compress.graph.groups import groups, prunable_blocks
from compress.network import Network
from compress.scheme import Scheme
from hw_profiles.tables.kernel_classes import KernelClasses
from workers.errors import InvalidInput, JobFailed, NetworkRefused
from workers.problem.builder import ProblemBuilder
from workers.problem.kernel_space import KernelSpace
from workers.problem.widths import MOST_LEVELS, searched_widths
from workers.profiling.left_out import demand_changes, known_left_out, leave_out_culprit
from workers.running.context import Context
from workers.running.fuser import Fuser
from workers.running.inputs import Inputs

_FEW_IMAGES = 4  # enough images for int8 ranges, which do not affect timings


def taken_apart(
    context: Context, inputs: Inputs, network: Network, classes: Sequence[KernelClasses], fuser: Fuser
) -> ProblemBuilder:
    """Return a builder with as many levels per knob as possible while every kernel's table stays small, and without the
    options that a device refuses.

    Raises:
        JobFailed: there is nothing to change, or the network is too entangled.
        DeviceOffline, MeasurementFailed, Halted: see `Ports.fused`.
    """
    blocks = prunable_blocks(network)
    for group in groups(network):
        if group.reason:
            context.say(f"{group.name} keeps all {group.width} channels: {group.reason}.")
    scheme = Scheme.of([(method.name, method.settings) for method in context.plan.methods])
    images, _ = inputs.reference(_FEW_IMAGES)
    evidence = Evidence(images=images, importance={b.name: np.ones(b.width) for b in blocks})
    most = MOST_LEVELS
    while True:
        left_out = known_left_out(context)
        try:
            widths = searched_widths(network, scheme, classes, most)
            kernels = KernelSpace(network, scheme, widths, evidence, fuser.runtimes, fuser, left_out.options)
            demand_changes(kernels, left_out)
            with fuser.computing():
                builder = ProblemBuilder(kernels)
        except NetworkRefused as error:
            leave_out_culprit(context, fuser, kernels, error)
            continue
        except InvalidInput as error:
            if error.field == "methods":
                raise JobFailed("nothing_to_change", "profile", error.message, "methods") from error
            if most <= 2:
                raise JobFailed("too_entangled", "profile", str(error), "model") from error
            most = most // 2 if most > 4 else most - 1
            context.say(f"Many blocks share one kernel, so each knob gets at most {most} widths.")
            continue
        prunable = sum(knob.role == "width" for knob in builder.space.knobs)
        context.say(f"{prunable} blocks can be pruned, {len(builder.space.knobs)} knobs in all.")
        return builder
