"""Pure decisions: what a module does next, and why.

Nothing in this room opens a socket or a file, reads a clock, starts a thread or awaits. An automaton is a frozen
value; `step(state, event) -> (state, effects)` is all there is. `mirror.py` and `farm.py` hold the tables, `data.py`
says who may be primary, `failover.py` turns resources into wishes, `loopguard.py` stops a module that keeps failing.
"""
