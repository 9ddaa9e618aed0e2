"""Compression of networks: groups, methods, rewriting, training, data, built-in networks."""

import os

# By default, torch's threads spin while they wait for each other. This setting lets them sleep, because on a busy
# machine a thread might spin while the thread that it waits for is not running at all. At load 9, an evaluation by two
# threads once took fifteen times as long, but no benchmark shows this effect. Torch reads the variable once, when it is
# loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
