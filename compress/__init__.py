"""Compression of networks: groups, methods, rewriting, training, data, built-in networks."""

import os

# Torch's threads spin while they wait for each other. On a busy machine a thread may then spin for one that is not
# running at all. This is a choice: at load 9 an evaluation by two threads once took fifteen times as long, but no
# benchmark shows it. The variable is read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
