"""Code for strategies that step up and down the knobs: rungs, moves and predicted losses."""
