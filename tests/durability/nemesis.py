"""Carries out one step of a schedule on the pair, and says which misfortunes came of it. Faults only; who checks is `trial.py`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from tests.durability.pair import FAULTS, NAME, ON_NODE, RFS_PORT, Pair, settled
from tests.durability.promise import Misfortune, PowerLoss, Split
from tests.durability.schedules import Cut, Freeze, FullDisk, Kill, Order, Power, Return, Step, may_split
from tests.nodes import CommandFailed, Node, Result
from tests.system.product import safekit, wait_state

_RFS = f"""\
unit=safekit-rfs@{NAME}.service
main=$(systemctl show --property=MainPID --value $unit)
group=/sys/fs/cgroup$(systemctl show --property=ControlGroup --value $unit)
all=$(cat "$group/cgroup.procs")
others=$(for p in $all; do [ $p = $main ] || echo $p; done)
"""

KILLS = {
    # At one instant: of two that die one after the other the second has started another first.
    "rfs": f'{_RFS} echo 1 >"$group/cgroup.kill"',
    "rfs-main": f"{_RFS} kill -9 $main",
    "rfs-worker": f"{_RFS} kill -9 ${{others:-$main}}",
    "safekitd": "kill -9 $(systemctl show --property=MainPID --value safekitd)",
    "pulse": "kill -9 $(systemctl show --property=MainPID --value safekit-pulse)",
    "application": f"kill -9 $(systemctl show --property=MainPID --value application-{NAME})",
}

_FILL = """\
free=$(df --output=avail -B1 /data | tail -1)
fallocate -l $free /data/ballast.0 2>/dev/null
n=0
for size in 1G 128M 16M 1M 128K 16K 4K; do
  while n=$((n + 1)); fallocate -l $size /data/ballast.$n 2>/dev/null; do [ $n -lt 400 ] || exit 1; done
done
"""

_WAIT_S = 12
"""How long a phase of a resynchronisation is waited for before the step goes on without its interruption."""


def cut_stream(node: Node) -> None:
    """The replication is lost on its way without a word; heartbeats pass."""
    rules = f"tcp dport {RFS_PORT} drop; tcp sport {RFS_PORT} drop;"
    chains = [f"chain {way} {{ type filter hook {way} priority 0; {rules} }}" for way in ("input", "output")]
    node.run(["nft", "-f", "-"], input="\n".join([f"table inet {FAULTS} {{", *chains, "}"]).encode())


class Nemesis:
    """Does to the pair what a schedule says."""

    def __init__(self, pair: Pair, tell: Callable[[str], None]) -> None:
        self.pair, self.tell = pair, tell
        self.misfortunes: list[Misfortune] = []
        self.missed: list[str] = []
        """Interruptions that came too late: the phase was over."""
        self.administrator: list[str] = []

    def strike(self, step: Step, *, settle: bool) -> None:
        """Carry out one step; with `settle` the pair is whole again afterwards."""
        began = time.time()
        primary, secondary = self.pair.roles()
        self.tell(f"{step} ({primary.name} serves)")
        match step:
            case Kill():
                self._kill(step, primary, secondary)
            case Power(where="both"):
                self._both(step, primary, secondary)
            case Power():
                victim = primary if step.where == "primary" else secondary
                self._power_cut(victim)
                time.sleep(step.off)
                victim.power_on()
            case Cut():
                self._cut(step, primary, secondary)
            case Freeze():
                victim = primary if step.where == "primary" else secondary
                victim.freeze()
                time.sleep(step.seconds)
                victim.thaw()
            case FullDisk():
                self._fill(primary if step.where == "primary" else secondary, step.seconds)
            case Order():
                safekit(primary if step.where == "primary" else secondary, f"{step.action} -m {NAME}", check=False)
            case Return():
                self._return(step, primary, secondary)
        if settle:
            self.settle(two_histories=may_split(step))
        if may_split(step):
            _, loser = self.pair.roles()
            self.misfortunes.append(Split(began, time.time(), loser.name))

    def settle(self, *, two_histories: bool = False) -> None:
        """Wait until the pair is whole."""
        did = settled(self.pair, two_histories=two_histories)
        self.administrator += did
        self.tell("the pair is whole" + (f" (after {', '.join(did)})" if did else ""))

    def clear(self) -> None:
        """Whatever fails at present does not fail any longer."""
        self.pair.lab.heal()
        for node in self.pair.nodes:
            if node.is_on():
                node.thaw()
                node.run(f"rm -f /data/ballast.*; nft delete table inet {FAULTS} 2>/dev/null", check=False)

    # --- faults

    def _kill(self, step: Kill, primary: Node, secondary: Node) -> None:
        victim = primary if step.where == "primary" else secondary
        for number in range(step.times):
            if number:
                time.sleep(0.7)
            victim.run(KILLS[step.process], check=False)

    def _power_cut(self, node: Node) -> None:
        node.power_cut()
        self.misfortunes.append(PowerLoss(node.name, time.time()))

    def _both(self, step: Power, primary: Node, secondary: Node) -> None:
        with ThreadPoolExecutor(2) as pool:
            one = pool.submit(self._power_cut, primary)
            time.sleep(step.gap)
            other = pool.submit(self._power_cut, secondary)
            one.result()
            other.result()
        time.sleep(step.off)
        first = primary if step.first_back == "primary" else secondary
        first.power_on()
        self.pair.peer(first).power_on()

    def _cut(self, step: Cut, primary: Node, secondary: Node) -> None:
        lab = self.pair.lab
        match step.way:
            case "both":
                lab.cut(primary.name, secondary.name)
            case "from-primary":
                lab.cut(primary.name, secondary.name, one_way=True)
            case "from-secondary":
                lab.cut(secondary.name, primary.name, one_way=True)
            case "lossy":
                lab.cut(primary.name, secondary.name, loss=33)
            case _:
                cut_stream(secondary)
        time.sleep(step.seconds)
        lab.heal()
        secondary.run(f"nft delete table inet {FAULTS} 2>/dev/null", check=False)

    def _fill(self, node: Node, seconds: float) -> None:
        node.run(_FILL, check=False)
        time.sleep(seconds)
        node.run("rm -f /data/ballast.*")

    def _return(self, step: Return, primary: Node, secondary: Node) -> None:
        """The secondary leaves, the primary writes, the secondary comes back, and then the interruption."""
        kind, _, where = step.interruption.partition("-")
        watched = secondary if where == "secondary" else primary
        local = KILLS.get(kind, "true") if where else "true"
        waiting = f"python3 {ON_NODE}/await_phase /run/safekit/modules/{NAME}/rfs.sock {step.phase} {_WAIT_S}"
        words = f"{waiting} || exit 1\n{local}\nexit 0"
        with ThreadPoolExecutor(1) as pool:

            def watch() -> Future[Result]:
                return pool.submit(watched.run, words, check=False, timeout=_WAIT_S + 15)

            if step.leaves == "rfs":  # it comes back by itself
                watching = watch()
                time.sleep(0.5)
                secondary.run(KILLS["rfs"], check=False)
                with contextlib.suppress(CommandFailed):  # the interruption may be quicker
                    self._write_much(primary, step.megabytes)
            else:
                if step.leaves == "power":
                    self._power_cut(secondary)
                else:
                    safekit(secondary, f"stop -m {NAME}")
                    wait_state(secondary, NAME, "STOP", substate="NotReady")
                wait_state(primary, NAME, "ALONE")
                self._write_much(primary, step.megabytes)
                if step.leaves == "power":
                    secondary.power_on(wait=False)
                watching = watch()
                if step.leaves == "stop":
                    safekit(secondary, f"start -m {NAME}")
            if not watching.result().ok:
                self.missed.append(str(step))
                self.tell("the phase was not seen")
                return
        self._interrupt(kind, primary, secondary if where == "secondary" else primary, secondary)

    def _write_much(self, primary: Node, megabytes: int) -> None:
        size = megabytes * 1_000_000 // 30
        self.pair.ask_application(primary, do="burst", path=f"burst-{time.time_ns()}", files=240, size=size, seed=size)

    def _interrupt(self, kind: str, primary: Node, victim: Node, secondary: Node) -> None:
        """What could not be done on the spot."""
        match kind:
            case "power":
                self._power_cut(victim)
                time.sleep(1)
                victim.power_on()
            case "cut":
                self.pair.lab.cut(primary.name, secondary.name)
                time.sleep(4)
                self.pair.lab.heal()
            case "stop":
                safekit(secondary, f"stop -m {NAME}", check=False)
            case "swap":
                safekit(secondary, f"swap -m {NAME}", check=False)
