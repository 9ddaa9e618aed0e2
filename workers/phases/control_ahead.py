"""Trains the control before a search by full training runs, because the accuracy limits of this search refer to the
control.
"""

from __future__ import annotations

from workers.evaluating.evaluation_files import Material
from workers.running.job_run import JobRun
from workers.training.recipe import recipe_of
from workers.training.trained import Trained
from workers.training.trainer import Trainer


def control_ahead(run: JobRun, material: Material) -> Trained:
    """Train the control while the phase is still "statistics".

    Raises:
        JobFailed: the control's training diverges.
        Halted: the user paused or cancelled the job.
    """
    run.context.at("statistics", 0, 1)
    trainer = Trainer(run, material, recipe_of(run.context, run.inputs), 1, phase="statistics")
    trainer.ahead()
    return trainer.control()
