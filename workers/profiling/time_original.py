"""Measures the original: the latency of each of its forms on each target, and its scores on the validation images."""

from __future__ import annotations

from collections.abc import Mapping

from compress.network import Network
from compress.scoring.difference import Scores
from hw_profiles.timing.protocol import BurstProtocol, Sample, statistic_us
from workers.plan import Target
from workers.profiling.refusals import demand, ran, refused
from workers.running import memos
from workers.running.context import Context
from workers.running.device_requests import measured
from workers.running.inputs import Inputs

UPLOADED, REWRITTEN = "uploaded", "rewritten"
_QUICK = BurstProtocol()


def time_original(context: Context, inputs: Inputs, target: Target) -> Mapping[str, Sample]:
    """Time the whole uploaded network, and its rewritten form if there is one and the device runs it.

    Raises:
        DeviceOffline, MeasurementFailed: raised by the ports, or the device refuses the uploaded network.
        Halted: the user paused or cancelled the job.
    """
    forms: dict[str, Network | bytes] = {UPLOADED: inputs.network}
    if inputs.rewritten is not inputs.folded:
        forms[REWRITTEN] = inputs.rewritten
    answers = measured(context, inputs, "original", target.device_id, forms, _QUICK, {UPLOADED})
    demand(target.device_id, answers, UPLOADED)
    for name, failure in refused(answers).items():
        context.say(
            f"{target.device_name} refuses the {name} form of the network, which is not used: {failure.reason}."
        )
    samples = ran(answers)
    shown = ", ".join(f"{statistic_us(sample, 'quiet') / 1e3:.3f} ms as {name}" for name, sample in samples.items())
    context.say(f"{target.device_name}: the original takes {shown} (quiet).")
    return samples


def timed_form_of(context: Context, inputs: Inputs, originals: Mapping[str, Mapping[str, Sample]]) -> Network:
    """Return the rewritten form if it is faster on every device, else the uploaded network with its batch norms
    folded.
    """
    pays = [
        REWRITTEN in samples and statistic_us(samples[REWRITTEN], "quiet") <= statistic_us(samples[UPLOADED], "quiet")
        for samples in originals.values()
    ]
    if pays and all(pays):
        context.say("A lossless rewrite of the shortcuts is faster; every candidate and the control use it.")
        return inputs.rewritten
    return inputs.folded


def original_scores(context: Context, inputs: Inputs) -> Scores:
    """Return the scores of the original on the validation images; computed once per job."""

    def look() -> Scores:
        with context.computing():
            return inputs.scores(inputs.network.save())

    return context.once(memos.ORIGINAL_SCORES, look)


def original_score(context: Context, inputs: Inputs) -> float:
    """Return the original's mean score on the validation images, and log it for the user."""
    scores, metric = original_scores(context, inputs), context.plan.metric_row
    score = float(scores.mean())
    context.say(f"The original's {metric.heading} is {metric.told(score)} on {len(scores)} validation images.")
    return score
