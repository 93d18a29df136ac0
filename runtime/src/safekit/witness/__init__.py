"""The witness: a third place that remembers who may serve a mirror module.

Two nodes cannot agree alone, and a router that answers a ping proves nothing. What decides is one small durable register
per module, changed by compare-and-set: `automaton/register.py` has its rules. It is touched when a state changes, never
per write. This room keeps the registers on the disk of a witness and carries claims and verdicts.
"""

from safekit.automaton.register import Claim, Ground, Register, Verdict, decide

__all__ = ["Claim", "Ground", "Register", "Verdict", "decide"]
