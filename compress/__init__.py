"""What can be done to a network: groups, methods, rewriting, training, data, built-in networks."""

import os

# Torch's threads spin while they wait for each other. On a machine that has other work too, each then waits for one
# that is not even running. A choice: on a machine at load 9 an evaluation by two threads took fifteen times as long,
# looked at once; no benchmark shows it. The variable is read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
