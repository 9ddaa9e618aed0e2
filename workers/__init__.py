"""The work of a job: the problem builder, the evaluator, pools, the ask-evaluate-tell loop, the phases."""
