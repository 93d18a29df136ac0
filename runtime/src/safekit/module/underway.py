"""The steps that this daemon has begun: each is carried out once in its life.

After a restart of the daemon the automaton performs the current step of a plan again (`Resumed`): nobody knows how far
it came. A plan that began since the restart, because something was heard first, is under way already.
"""

from __future__ import annotations


class Underway:
    """Serial numbers of steps, from their beginning until the automaton has heard of their end."""

    def __init__(self) -> None:
        self._serials: set[int] = set()

    def begins(self, serial: int) -> bool:
        """Whether the step must be carried out: False when it is under way."""
        if serial in self._serials:
            return False
        self._serials.add(serial)
        return True

    def ended(self, serial: int) -> None:
        """The automaton has heard of its end: a step of that number would be another one."""
        self._serials.discard(serial)
