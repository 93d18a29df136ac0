"""One module on this node: owns its automaton, turns its effects into calls of the rooms below, feeds the results
back as events.

`engine.py` is what every mode shares, `mirror.py` and `farm.py` what each step means in that mode, `record.py` the
data record on disk, `settings.py` what an administrator chose and what was started. Nothing here decides: the
automaton does.
"""
