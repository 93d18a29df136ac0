"""How long clients wait when a primary dies, is stopped, hands over, or loses its application; and false alarms under load.

    python benchmarks/failover.py [--rounds 30] [--minutes 30] [--only cut,stop,swap,kill,reference,false]
                                  [--witness]

The mirror of the nodes' tests with a trivial application, written to all the time; a client on a third machine asks the
virtual address every 20 ms who is there. With a witness n3 decides between the two, and they serve on leases.
build/reports/failover.json (failover-witness.json) holds `rows` and `targets`; a run of less than everything writes
failover-part.json (failover-witness-part.json) instead. The exit code is 1 when a target is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

if not __package__:  # `python benchmarks/failover.py`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import outages
from benchmarks.outages import FALSE, FAST, REFERENCE, Answer, Call, Series
from tests.faults.arbiter import declare_witness, forget_witness
from tests.nodes import CommandFailed, Lab, Node, NotInTime, wait_for
from tests.nodes.engine import ROOT
from tests.nodes.runtime import install_runtime
from tests.system.clients import Probe
from tests.system.membership import form_cluster
from tests.system.mirror import FOLDER, NAME, Mirror
from tests.system.modules import LEDGER, LEDGER_PORT, NOTES, mirror_vip
from tests.system.product import entries, mark, safekit, wait_state

REPORTS = ROOT / "build" / "reports"
ROUNDS, MINUTES, REFERENCE_ROUNDS, SEED = 30, 30.0, 3, 1
LOAD = 8
TIMES = f"{NOTES}/times"
APPLICATION = f"ledger-{NAME}.service"

_SCRIPT = """\
#!/bin/sh
# Notes when it begins and ends: what the application itself takes is no time of the product.
note() {{ printf '%s %s {name}\\n' "$(date +%s.%N)" "$1" >>{times}; }}
note begin
{then}
note end
"""
_START = """\
systemctl is-active --quiet ledger-$SAFEMODULE || systemd-run --quiet --collect --unit=ledger-$SAFEMODULE \\
    --property=Type=notify --property=NotifyAccess=all python3 "$SAFEUSERBIN/ledger" "$LEDGER_PORT" "$LEDGER"
"""
_STOP = "systemctl stop ledger-$SAFEMODULE 2>/dev/null"


def say(text: str) -> None:
    """What happens, for who waits."""
    print(f"{time.strftime('%T')} {text}", file=sys.stderr, flush=True)


class Measured(Mirror):
    """Module `m` with a timing profile; an application that is killed is restarted, and never too often."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.profile = FAST
        self.probe = Probe(lab.client, self.address, LEDGER_PORT)

    def files(self) -> dict[str, str]:
        """What is installed."""
        config = f"""\
<safe><service mode="mirror" boot="auto" maxloop="100000">
  <heart {outages.PULSES[self.profile]}><heartbeat name="pair"/></heart>
  <rfs async="second"><replicated dir="{FOLDER}"/></rfs>
  {mirror_vip(self.address)}
  <user nicestoptimeout="20s" forcestoptimeout="10s">
    <var name="LEDGER" value="{FOLDER}/ledger"/><var name="LEDGER_PORT" value="{LEDGER_PORT}"/>
  </user>
  <errd polltimer="1s"><proc name="{APPLICATION}" service="yes" class="prim" action="restart"/></errd>
</service></safe>
"""
        return {
            "conf/userconfig.xml": config,
            "bin/ledger": LEDGER,
            "bin/start_prim": _SCRIPT.format(name="start_prim", times=TIMES, then=_START),
            "bin/stop_prim": _SCRIPT.format(name="stop_prim", times=TIMES, then=_STOP),
        }

    def begin(self, profile: str) -> None:
        """PRIM and SECOND in this profile, written to and asked all the time."""
        self.end()
        self.profile = profile
        self.uninstall()
        self.install()
        self.first_start(self.nodes[0])
        self.writer.start()
        self.probe.start()

    def end(self) -> None:
        """Nobody writes and asks any more."""
        self.writer.abandon()
        self.probe.stop()

    def own_calls(self, node: Node, since: float) -> list[Call]:
        """The calls of the application's scripts on a node that began after `since`."""
        lines = node.run(["cat", TIMES], check=False).out.splitlines()
        return [call for call in outages.calls(lines) if call.began > since]

    def answers(self, since: float) -> list[Answer]:
        """What the client was told since then."""
        return outages.parsed(self.probe.since(since))

    def said(self, node: Node, words: str, since: float) -> float | None:
        """When the log of a node first said something after `since`."""
        for entry in entries(node, NAME):
            date = datetime.fromisoformat(entry["date"]).timestamp()
            if date > since and words in str(entry["message"]):
                return date
        return None

    def settle(self, primary: Node) -> None:
        """The pair is whole again, and the client is answered by its primary."""
        self.wait_roles(primary, timeout=120)
        self.probe.await_answer_of(primary, time.time())
        self.writer.await_promise(5)


class Run:
    """What is done to the pair; each function is one round and adds its figure to a series."""

    def __init__(self, pair: Measured, seed: int) -> None:
        self.pair = pair
        self._random = random.Random(seed)

    def _roles_at_any_moment(self) -> tuple[Node, Node]:
        """The primary and its peer, at a moment that has nothing to do with any pulse."""
        roles = self.pair.roles()
        time.sleep(self._random.uniform(0.0, 0.7))
        return roles

    def cut(self, series: Series) -> None:
        """The primary loses its power under load, and comes back."""
        old, new = self._roles_at_any_moment()
        begun = time.time()
        old.power_cut()
        try:
            self.pair.probe.await_answer_of(new, begun, timeout=90)
            move = outages.moved(self.pair.answers(begun - 1), new.name)
            wait_state(new, NAME, "ALONE")
            assert move is not None
            last, first = move
            start = next(call for call in self.pair.own_calls(new, begun) if call.name == "start_prim")
            noticed = self.pair.said(new, "no heartbeat", begun)
            self.pair.writer.await_promise()
            written = self.pair.writer.first_after(first)
            value = first - last - (start.seconds if self.pair.profile == REFERENCE else 0.0)
            series.add(
                value,
                detection=None if noticed is None else noticed - last,
                until_the_script=None if noticed is None else start.began - noticed,
                script=start.seconds,
                answer_after_script=first - start.ended,
                first_write=None if written is None else written - last,
            )
        finally:
            old.power_on()
            self.pair.settle(new)

    def stop(self, series: Series) -> None:
        """The primary is stopped in order, and started again."""
        old, new = self._roles_at_any_moment()
        begun = time.time()
        safekit(old, f"stop -m {NAME}")
        self.pair.probe.await_answer_of(new, begun, timeout=60)
        move = outages.moved(self.pair.answers(begun - 1), new.name)
        wait_state(old, NAME, "STOP", substate="NotReady")
        wait_state(new, NAME, "ALONE")
        assert move is not None
        last, first = move
        stop = next(call for call in self.pair.own_calls(old, begun) if call.name == "stop_prim")
        start = next(call for call in self.pair.own_calls(new, begun) if call.name == "start_prim")
        series.add(
            first - stop.ended,
            silence=first - last,
            until_the_script=start.began - stop.ended,
            script=start.seconds,
            answer_after_script=first - start.ended,
        )
        safekit(old, f"start -m {NAME}")
        self.pair.settle(new)

    def swap(self, series: Series) -> None:
        """The roles are exchanged."""
        old, new = self._roles_at_any_moment()
        begun = time.time()
        safekit(old, f"swap -m {NAME}")
        self.pair.probe.await_answer_of(new, begun, timeout=60)
        move = outages.moved(self.pair.answers(begun - 1), new.name)
        assert move is not None
        last, first = move
        self.pair.settle(new)
        stops = [call for call in self.pair.own_calls(old, begun) if call.name == "stop_prim"]
        start = next(call for call in self.pair.own_calls(new, begun) if call.name == "start_prim")
        own = sum(call.seconds for call in stops) + start.seconds
        series.add(
            max(0.0, first - last - own),
            silence=first - last,
            application=own,
            between_the_scripts=start.began - stops[-1].ended,
        )

    def kill(self, series: Series) -> None:
        """The application is killed, seen by its checker, and restarted on the same node."""
        primary, _ = self._roles_at_any_moment()
        begun = time.time()
        primary.run(["systemctl", "kill", "--signal=KILL", APPLICATION])
        wait_for(
            "the application is started again",
            lambda: any(call.name == "start_prim" for call in self.pair.own_calls(primary, begun)),
            timeout=60,
        )
        self.pair.settle(primary)
        gap = outages.longest_gap(self.pair.answers(begun - 1))
        assert gap is not None
        done = self.pair.own_calls(primary, begun)
        series.add(
            gap[1] - gap[0],
            detection=done[0].began - gap[0],
            application=sum(call.seconds for call in done),
        )

    def false_alarms(self, series: Series, minutes: float) -> None:
        """Nothing is done, but the processors are busy: who is taken for lost all the same."""
        nodes = self.pair.nodes
        seen = {node.name: mark(node, NAME) for node in nodes}
        busy = [node.start(_loops(LOAD // len(nodes))) for node in nodes]
        begun, end = time.time(), time.monotonic() + 60 * minutes
        load: list[float] = []
        try:
            while time.monotonic() < end:
                time.sleep(min(10.0, max(0.0, end - time.monotonic())))
                load.append(os.getloadavg()[0])
                assert all(loop.alive for loop in busy)
        finally:
            for loop in busy:
                loop.stop()
        told = [
            str(entry["message"])
            for node in nodes
            for entry in entries(node, NAME)
            if int(entry["id"]) > seen[node.name]
        ]
        late = [message for message in told if message.startswith("this node was late")]
        gap = outages.longest_gap(self.pair.answers(begun))
        series.add(
            sum(1 for message in told if message.startswith("no heartbeat from")),
            minutes=minutes,
            load_average=max(load, default=0.0),
            role_changes=sum(1 for message in told if message.startswith("Local state ")),
            late_by_two_pulses=len(late),
            longest_silence_s=None if gap is None else gap[1] - gap[0],
        )
        self.pair.wait_roles(timeout=120)


def _loops(number: int) -> str:
    return f"for one in $(seq {number}); do (while :; do :; done) & done; wait"


ROWS = {
    "cut": "power cut of the primary, VIP answers again",
    "stop": "orderly stop, VIP answers on the other node",
    "swap": "swap, beside the application's own time",
    "kill": "application killed, restarted in place",
    "cut-reference": "power cut, the reference's time-outs (30 s)",
    FALSE: f"false detections, {LOAD} busy loops",
}


def measure(
    only: frozenset[str],
    rounds: int,
    minutes: float,
    seed: int,
    done: Callable[[Series], None],
    *,
    witness: bool = False,
) -> None:
    """Measures what was asked for, row after row; `done` gets each. A round that fails is noted, and the pair mended."""
    lab = Lab.here(say=say)
    lab.ensure()
    install_runtime(lab.nodes)
    if witness:
        declare_witness(lab, lab["n3"])
    else:
        form_cluster(lab)
    pair = Measured(lab)
    run = Run(pair, seed)
    again: dict[str, Callable[[Series], None]] = {"swap": run.swap, "kill": run.kill, "stop": run.stop, "cut": run.cut}
    try:
        for profile in (FAST, REFERENCE):
            wanted = [key for key in again if key in only] if profile == FAST else ["cut-reference"]
            if (profile == REFERENCE and "reference" not in only) or not (wanted or FALSE in only):
                continue
            pair.begin(profile)
            for key in wanted:
                series = Series(key, ROWS[key])
                one = again["cut" if key == "cut-reference" else key]
                for number in range(rounds if profile == FAST else min(rounds, REFERENCE_ROUNDS)):
                    _round(pair, series, number, one)
                done(series)
            if profile == FAST and FALSE in only:
                series = Series(FALSE, ROWS[FALSE], unit="")
                say(f"{LOAD} busy loops for {minutes:g} minutes")
                run.false_alarms(series, minutes)
                done(series)
    finally:
        pair.end()
        pair.uninstall()
        if witness:
            forget_witness(lab, lab["n3"])


def _round(pair: Measured, series: Series, number: int, one: Callable[[Series], None]) -> None:
    try:
        one(series)
        say(f"{series.key} {number + 1}: {series.rounds[-1]:.3f} s")
    except (AssertionError, CommandFailed, NotInTime, StopIteration) as trouble:
        why = str(trouble).splitlines()[0] if str(trouble) else type(trouble).__name__
        series.missed.append(f"round {number + 1}: {why}")
        say(f"{series.key} {number + 1}: {trouble}")
        pair.lab.collect(REPORTS / "failures" / f"failover-{series.key}-{number + 1}")
        for node in pair.nodes:
            if not node.is_on():
                node.power_on()
        pair.begin(pair.profile)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks.failover", description="How long clients wait.")
    kinds = ("cut", "stop", "swap", "kill", "reference", FALSE)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each kind (%(default)s)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of busy processors (%(default)s; 0: none)")
    parser.add_argument("--only", default=",".join(kinds), help="only these: %(default)s")
    parser.add_argument("--seed", type=int, default=SEED, help="of the moments at which things happen (%(default)s)")
    parser.add_argument("--witness", action="store_true", help="n3 is the witness of the pair")
    given = parser.parse_args(words)
    given.only = frozenset(given.only.split(","))
    if unknown := given.only - set(kinds):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected {', '.join(kinds)}")
    if given.minutes <= 0:
        given.only -= {FALSE}
    given.whole = given.only == set(kinds) and given.rounds >= ROUNDS and given.minutes >= MINUTES
    return given


def main(words: list[str] | None = None) -> int:
    """Measure, print, write."""
    given = arguments(words)
    found: list[Series] = []
    report = REPORTS / f"failover{'-witness' * given.witness}{'-part' * (not given.whole)}.json"
    load = os.getloadavg()[0]
    began = time.monotonic()

    def write(series: Series) -> None:
        found.append(series)
        print(outages.histogram(series), flush=True)
        about = {
            "kernel": platform.release(),
            "cores": os.cpu_count(),
            "rounds": given.rounds,
            "seed": given.seed,
            "witness": given.witness,
            "profiles": outages.PULSES,
            "load_before": round(load, 1),
            "load_after": round(os.getloadavg()[0], 1),
            "seconds": round(time.monotonic() - began, 1),
        }
        told = {"about": about, "rows": [one.as_dict() for one in found], "targets": outages.verdicts(found)}
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")

    try:
        measure(given.only, given.rounds, given.minutes, given.seed, write, witness=given.witness)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    told = outages.verdicts(found)
    print(outages.table(told))
    print(f"load of the machine {load:.1f} before, {os.getloadavg()[0]:.1f} after, on {os.cpu_count()} cores")
    print(report.relative_to(ROOT))
    return 0 if all(one["met"] for one in told) else 1


if __name__ == "__main__":
    sys.exit(main())
