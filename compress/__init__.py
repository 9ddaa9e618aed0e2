"""What can be done to a network: groups, methods, rewriting, training, data, built-in networks."""

import os

# Torch's threads spin while they wait for each other. On a machine that has other work too, each then waits for one
# that is not even running: an evaluation took twelve times its processor time and fifteen times as long (measured, two
# threads at load 9). Waiting asleep costs nothing to speak of. The variable is read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
