"""One module on this node: owns its automaton, turns its effects into calls of the rooms below, feeds the results
back as events.

`engine.py` is what every mode shares, `mirror.py` and `farm.py` what each step means in that mode, `replica.py` the
data plane of a mirror with what runs by the clock (`replica_watch.py`) and what is told of a resynchronisation
(`resync.py`), `record.py` the data record on disk, `settings.py` what an administrator chose and what was started.
Nothing here decides: the automaton does.
"""
