"""The witness: a third place that remembers who may serve a mirror module.

Two nodes cannot agree alone, and a router that answers a ping proves nothing. What decides is one small durable register
per module, changed by compare-and-set: `automaton/register.py` has its rules. It is touched when a state changes, never
per write. This room keeps the registers on the disk of a witness (`store.py`), answers for many clusters (`service.py`,
what it serves: `served.py`), and asks for the modules of a node (`client.py`); `messages.py` is what travels between.
"""
