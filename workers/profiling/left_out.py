"""Left out: options that a device refuses leave the space of the job, and the user is told why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hw_profiles.timing.protocol import Failure, Sample
from search.space import Value, Values
from workers.errors import JobFailed, MeasurementFailed, NetworkRefused
from workers.problem.builder import ProblemBuilder
from workers.problem.culprit import culprit
from workers.problem.kernel_space import KernelSpace
from workers.profiling.refusals import ran, refused
from workers.running import memos
from workers.running.context import Context
from workers.running.fuser import Fuser


def known_left_out(context: Context) -> memos.LeftOut:
    """Return the options that runs of this job have left out so far."""
    return context.recall(memos.LEFT_OUT) or memos.LeftOut({}, ())


def demand_changes(kernels: KernelSpace, known: memos.LeftOut) -> None:
    """Raise JobFailed if nothing is left that a search could change."""
    if known.options and not kernels.densities and all(knob.level_count == 1 for knob in kernels.levelled):
        raise JobFailed("refused", "profile", f"nothing can be changed: {' '.join(known.told)}", "targets")


def leave_out_culprit(context: Context, fuser: Fuser, kernels: KernelSpace, error: NetworkRefused) -> None:
    """Leave out the options of the knob because of which a device cannot load a network.

    Raises:
        MeasurementFailed: the device cannot load the uncut network.
        DeviceOffline, Halted: see `Ports.fused`.
    """
    assert error.values is not None, "the error comes from the network's values"
    with fuser.computing():
        knob = culprit(kernels, error.values)
    if knob is None:
        raise MeasurementFailed(error.device_id, f"it refuses the uncut network: {error.reason}") from error
    name = context.device_name(error.device_id)
    if knob.ordered:
        options = tuple(knob.value(level) for level in range(knob.level_count) if knob.value(level) != knob.whole)
        told = f"{name} cannot load the network if {knob.name} is cut, so {knob.name} stays whole: {error.reason}."
    else:
        options = (error.values[knob.name],)
        told = f"{name} cannot load the network with {knob.name} {options[0]}, which is left out: {error.reason}."
    _leave_out(context, {knob.name: options}, told)


def leave_out_settings(
    context: Context,
    builder: ProblemBuilder,
    drawn: Mapping[str, Values],
    sessions: Mapping[str, Mapping[str, Sample | Failure]],
    least: int,
) -> bool:
    """Leave out the options whose networks a device refuses to run; return True if there are any.

    Args:
        sessions: device id -> the answers about the networks `drawn` from the space.
        least: number of networks of a setting that a device must run.
    """
    found = False
    for device_id, answers in sessions.items():
        lost = [setting for setting in builder.settings[1:] if _count(setting, drawn, ran(answers)) < least]
        for knob, option in _options_of(builder.settings, lost):
            of_it = (name for name in refused(answers) if drawn.get(name, {}).get(knob) == option)
            reason = refused(answers)[next(of_it)].reason
            told = f"refuses the networks with {knob} {option}, which is left out: {reason}."
            _leave_out(context, {knob: (option,)}, f"{context.device_name(device_id)} {told}")
            found = True
    return found


def _count(setting: Values, drawn: Mapping[str, Values], samples: Mapping[str, Sample]) -> int:
    return sum(name in samples for name, values in drawn.items() if setting.items() <= values.items())


def _options_of(settings: Sequence[Values], lost: Sequence[Values]) -> list[tuple[str, Value]]:
    """Return the options, other than the original's, of which every setting is lost."""
    pairs = {pair for setting in lost for pair in setting.items()} - set(settings[0].items())
    return sorted((pair for pair in pairs if all(each in lost for each in settings if pair in each.items())), key=str)


def _leave_out(context: Context, options: Mapping[str, tuple[Value, ...]], told: str) -> None:
    known = known_left_out(context)
    more = {name: (*known.options.get(name, ()), *values) for name, values in options.items()}
    context.warn(told)
    context.keep(memos.LEFT_OUT, memos.LeftOut({**known.options, **more}, (*known.told, told)))
