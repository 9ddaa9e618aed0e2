"""Where it is done: the problem builder, the evaluator, pools, the ask-evaluate-tell loop, the job."""
