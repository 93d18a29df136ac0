"""What happens to a pair: administrators, killed processes, power cuts, networks; then the sun, and the pair must come
to rest."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from safekit.automaton.mirror import Policy, refusal
from safekit.automaton.vocabulary import Action, Command, Readiness, Role, Wish
from tests.simulation.network import BEATS, DATA, WITNESS
from tests.simulation.node import Node
from tests.simulation.world import World

HEALED_WITHIN_S = 360.0
"""An administrator who decides takes his time too: scripts of up to 32 s, and one order after another."""
ORDINARY = (
    Action.START,
    Action.START,
    Action.STOP,
    Action.RESTART,
    Action.STOPSTART,
    Action.SWAP,
    Action.SWAP,
    Action.FORCESTOP,
)


class Weather:
    """One seed of bad luck. `calm`: the network works and at most one machine is down or was just down."""

    def __init__(self, world: World, calm: bool) -> None:
        self.world, self.calm = world, calm
        self.clock = world.clock
        self._held = False

    def blow(self, seconds: float) -> None:
        """Misfortune for so long."""
        clock, world = self.clock, self.world
        until = clock.now + seconds
        while clock.now < until:
            self._something()()
            world.run(clock.between(0.0, 1.0) if clock.chance(0.5) else clock.between(1.0, 12.0))

    def _something(self) -> Callable[[], None]:
        happenings = [
            self.command,
            self.command,
            self.command,
            self.kill_daemon,
            self.hold,
            self.crash,
            self.kill_plane,
        ]
        if not self.calm:
            happenings += [self.crash, self.cut, self.cut, self.cut, self.pause, self.force, self.lose_datagrams]
        if self.world.policy is Policy.WITNESS:
            happenings += [self.lose_witness, self.cut_witness]
        return self.clock.random.choice(happenings)

    def _node(self) -> Node:
        return self.clock.random.choice((self.world.n1, self.world.n2))

    def command(self) -> None:
        """An administrator, or a script with an identity."""
        node, action = self._node(), self.clock.random.choice(ORDINARY)
        identity = ""
        if self.clock.chance(0.2):
            action, identity = self.clock.random.choice((Action.RESTART, Action.STOPSTART, Action.WAIT)), "errd"
        node.command(Command(action, identity))

    def hold(self) -> None:
        """A wait rule begins or ends to hold."""
        node = self._node()
        rules = () if node.state.held else ("interface_failure",)
        self.world.note(node.name, f"rules {rules}")
        node.hold(rules)

    def kill_daemon(self) -> None:
        """safekitd dies and is back soon."""
        node = self._node()
        node.kill_daemon()
        self.clock.after(self.clock.between(0.1, 3), node.restart_daemon)

    def kill_plane(self) -> None:
        """safekit-rfs dies."""
        if self.clock.chance(0.4):
            self._node().kill_plane()

    def crash(self) -> None:
        """A machine loses its power, and gets it back sooner or later."""
        node = self._node()
        if self.calm and not self.world.at_rest:
            return
        node.crash()
        start = self.clock.chance(0.8)
        self.clock.after(self.clock.between(0.5, 15), lambda: node.boot(start))

    def pause(self) -> None:
        """A machine stands still for a while."""
        node = self._node()
        self.world.stormy = True
        node.pause()
        self.clock.after(self.clock.between(0.5, 12), node.wake)

    def cut(self) -> None:
        """Traffic of one kind or both, in one direction or both."""
        world, clock = self.world, self.clock
        world.stormy = True
        kinds = clock.random.choice(((BEATS,), (DATA,), (BEATS, DATA), (BEATS, DATA)))
        ways = clock.random.choice((("n1",), ("n2",), ("n1", "n2"), ("n1", "n2")))
        cuts = {(kind, way) for kind in kinds for way in ways}
        world.note("world", f"cut {sorted(cuts)}")
        world.network.cuts |= cuts
        if DATA in kinds:
            for node in world.nodes.values():
                if node.plane.stream is not None and node.plane.mode == "primary":
                    node.plane.stream.watch_cut()
        clock.after(clock.between(0.5, 20), lambda: self._mend(cuts))

    def lose_witness(self) -> None:
        """The witness loses its power for a while."""
        self.world.witness.crash()
        self.clock.after(self.clock.between(0.5, 30), self.world.witness.boot)

    def cut_witness(self) -> None:
        """A node and the witness do not hear each other, or one does not hear the other."""
        node, clock = self._node().name, self.clock
        cuts = {(WITNESS, clock.random.choice((node, f"{node}>{node}", f"witness>{node}")))}
        if clock.chance(0.3):
            cuts = {(WITNESS, "n1"), (WITNESS, "n2")}
        self.world.note("world", f"cut {sorted(cuts)}")
        self.world.network.cuts |= cuts
        clock.after(clock.between(0.5, 30), lambda: self._mend(cuts))

    def _mend(self, cuts: set[tuple[str, str]]) -> None:
        self.world.note("world", f"mended {sorted(cuts)}")
        self.world.network.cuts -= cuts

    def lose_datagrams(self) -> None:
        """Heartbeats are lost and doubled from now on."""
        self.world.stormy = True
        self.world.network.loss = self.clock.between(0, 0.4)
        self.world.network.doubled = self.clock.between(0, 0.3)

    def force(self) -> None:
        """An administrator who overrules what the records say."""
        node = self._node()
        if not self.clock.chance(0.3) or node.state.role is not Role.STOP:
            return
        action = self.clock.random.choice((Action.PRIM, Action.SECOND))
        fullsync = self.clock.chance(0.5)
        command = Command(action, fullsync=fullsync, force=fullsync and action is Action.PRIM)
        if node.daemon and node.up and not refusal(node.state, command):
            self.world.forced = True
            node.command(command)

    # --- the sun ------------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """All is well again: PRIM and SECOND Ready with equal data, within a bound."""
        world = self.world
        world.heal()
        for node in world.nodes.values():
            node.hold(())
        until = self.clock.now + HEALED_WITHIN_S
        quiet_since = self.clock.now
        while self.clock.now < until:
            before = world.states()
            world.run(1.0)
            if world.states() != before:
                quiet_since = self.clock.now
            if self.clock.now - quiet_since > 10:
                if world.at_rest:
                    break
                self._administer()
        if not world.at_rest:
            world.laws.broken(f"all is well for {HEALED_WITHIN_S:.0f} s, and the pair is {world.states()}")
        world.writes = False
        if not world.until(lambda: not (world.n1.plane.pending or world.n2.plane.pending), 10):
            world.laws.broken("a write is never answered")
        world.run(1)
        if not world.at_rest:
            world.laws.broken(f"the pair does not rest: {world.states()}")
        if world.replicated and world.n1.copy.memory != world.n2.copy.memory:
            world.laws.broken("the data of PRIM and SECOND differ")

    def _administer(self) -> None:
        """What the log advises: start what is stopped; when both wait for a decision, decide."""
        world = self.world
        world.wish_both()
        if all(n.state.role is Role.WAIT and n.state.readiness is Readiness.NOT_READY for n in world.nodes.values()):
            self._decide()
            return
        for node in world.nodes.values():
            blocked = node.state.role is Role.WAIT and node.state.readiness is Readiness.NOT_READY
            if blocked and node.peer.state.role is Role.ALONE:
                world.note("world", f"overwrite {node.name}")
                world.forced = True
                self._stopped(node)
                node.command(Command(Action.SECOND, fullsync=True))
                world.run(10)

    def _decide(self) -> None:
        """Both wait, and no rule says who has the data: `prim` on one, `second fullsync` on the other."""
        world = self.world
        valid, other = (world.n1, world.n2) if world.n1.state.record.consistent else (world.n2, world.n1)
        world.note("world", f"the administrator chooses {valid.name}")
        world.forced = True
        self._stopped(valid)
        self._stopped(other)
        valid.command(Command(Action.PRIM))
        world.until(lambda: valid.state.role is Role.ALONE and valid.state.readiness is Readiness.READY, 60)
        other.command(Command(Action.SECOND, fullsync=True))
        world.run(5)

    def _stopped(self, node: Node) -> None:
        node.command(Command(Action.STOP))
        self.world.until(lambda: node.state.role is Role.STOP and node.state.wish is Wish.STOPPED, 60)


def live(seed: int, policy: Policy = Policy.NONE) -> World:
    """One whole life of a pair from one seed."""
    timeout_s = Random(seed).choice((2.5, 3.0, 5.0))
    world = World(seed, policy=policy, timeout_s=timeout_s)
    random = world.clock.random
    world.network.delay_s = random.choice((0.01, 0.05, 0.3))
    world.scripts_s = random.choice(((0.02, 0.2), (0.05, 1.0), (0.5, 4.0)))
    calm = random.random() < 0.4
    if random.random() < 0.9:
        world.pair()
    if random.random() < 0.3:
        world.script_failures = 0.1
    if random.random() < 0.15:
        world.step_failures = 0.05
    weather = Weather(world, calm)
    weather.blow(random.choice((10, 40, 90)))
    weather.clear()
    return world
