"""Two mirror automata of production under one seeded scheduler: one seed is one world.

`clock.py` is time and chance, `network.py` what can be cut, `plane.py` the data plane as `safekit.replication`
promises it, `pulse.py` the heartbeats, `node.py` a machine with its disk, its daemon and its application, `world.py`
both of them, `laws.py` what must hold after every step, `weather.py` what happens to them, `dropped.py` what comes of
a rule that is missing.
"""
