"""Every world that can be reached from a situation, breadth first: what is found is a shortest way to it.

A situation is a pair at rest and what happened to it since, in the words of `moves`. Not all of it can be walked: two machines, a
stream, a register and two writes make millions of worlds as soon as something goes wrong. So an exploration has a limit, and says
whether it came to an end before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from safekit.automaton.data import BLANK
from safekit.automaton.vocabulary import Action, Command, Readiness, Role
from tests.exploration.moves import MOST_WRITES, by_itself, faults
from tests.exploration.world import NAMES, Automaton, Broken, Draft, Node, World, calm, fresh

READY = Readiness.READY


@dataclass(frozen=True)
class Found:
    """What an exploration found: how many worlds, and the sentence of the law that does not hold with the way to it."""

    worlds: int
    moves: int
    complete: bool
    broken: str = ""
    way: tuple[str, ...] = ()


def at_rest(world: World) -> bool:
    """PRIM and SECOND, both Ready."""
    states = (world.n1.state, world.n2.state)
    return {state.role for state in states} == {Role.PRIM, Role.SECOND} and all(
        state.readiness is READY and not state.plan for state in states
    )


def pair_at_rest() -> World:
    """The first start: `prim` on n1, `second` on n2, and nothing written yet."""
    n1, n2 = (Node(Automaton.of(calm(fresh(name, BLANK, 0)))) for name in NAMES)
    draft = Draft(World(n1, n2, writes=MOST_WRITES))
    draft.tell("n1", Command(Action.PRIM))
    draft.tell("n2", Command(Action.SECOND))
    world = draft.world()
    for _ in range(1000):
        move = next(iter(by_itself(world)), None)
        if move is None:
            break
        world = move.world()
    if not at_rest(world):
        raise Broken(f"the first start ends in {world.n1.state.role}/{world.n2.state.role}")
    return world._replace(writes=0)


def _resting(world: World) -> str:
    """Why nothing more goes on in this world though it should; empty when all is well."""
    if at_rest(world):
        return ""
    states = [f"{node.state.role} {node.state.readiness} ({node.state.row})" for node in (world.n1, world.n2)]
    return f"nothing more happens, and the pair is {' / '.join(states)}"


def unfold(world: World, *labels: str) -> World:
    """What becomes of a world when this happens to it, each named by how its label begins; `ValueError` when it cannot."""
    for label in labels:
        draft = next((one for one in (*by_itself(world), *faults(world)) if one.label.startswith(label)), None)
        if draft is None:
            can = [one.label for one in (*by_itself(world), *faults(world))]
            raise ValueError(f"{label!r} cannot happen here; what can: {can}")
        world = draft.world()
    return world


def explore(situation: Sequence[str] = (), most_faults: int = 1, most_worlds: int = 10_000) -> Found:
    """Everything within so many faults from a situation, and so many worlds."""
    try:
        start = unfold(pair_at_rest(), *situation)
    except Broken as broken:
        return Found(0, 0, False, str(broken), (broken.label,))
    seen: dict[World, tuple[World, str] | None] = {start: None}
    coming, moves = deque([start]), 0
    while coming:
        world = coming.popleft()
        try:
            happening = list(by_itself(world))
            if not happening and (why := _resting(world)):
                return Found(len(seen), moves, False, why, _way(seen, world))
            goes_wrong = list(faults(world)) if world.faults < most_faults else []
            for draft in goes_wrong:
                draft.changes["faults"] = world.faults + 1
            for draft in (*happening, *goes_wrong):
                moves += 1
                after = draft.world()
                if after not in seen:
                    seen[after] = (world, draft.label)
                    coming.append(after)
        except Broken as broken:
            return Found(len(seen), moves, False, str(broken), (*_way(seen, world), broken.label))
        if len(seen) >= most_worlds:
            return Found(len(seen), moves, False)
    return Found(len(seen), moves, True)


def _way(seen: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    way: list[str] = []
    step = seen[world]
    while step is not None:
        before, label = step
        way.append(label)
        step = seen[before]
    return tuple(reversed(way))
