"""The story: a PostgreSQL mirror and an nginx farm on three nodes, and what happens when nodes die under load."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from demo import cluster
from demo.clients import WebClients
from demo.ledger import Ledger
from demo.narrator import Narrator
from tests.nodes.lab import Lab
from tests.nodes.node import Node

ROOT = Path(__file__).resolve().parent.parent
INVENTORY = ROOT / "inventories" / "demo"
REPORT = ROOT / "build" / "reports" / "demo.json"
LOG = ROOT / "build" / "logs" / "demo-deploy.log"


class StoryFailed(Exception):
    """The story cannot go on; one line says why."""


class Story:
    """Acts in order; each measures what it promises."""

    def __init__(self, narrator: Narrator) -> None:
        self.say = narrator
        self.lab = Lab.here(say=narrator.tell)
        self.nodes = [self.lab[name] for name in ("n1", "n2", "n3")]
        self.client = self.lab["client"]
        prefix = self.client.address.rsplit(".", 1)[0]
        self.db_address, self.web_address = f"{prefix}.100", f"{prefix}.101"
        self.ledger = Ledger(self.client, self.db_address, password="demo-secret")
        self.web = WebClients(self.client, self.web_address)
        self.failures = 0

    def play(self) -> None:
        """All acts."""
        self.deploy()
        self.load()
        self.power_cut()
        self.come_back()
        self.swap()
        self.audit()
        self.farm()
        self.farewell()

    def require(self, holds: bool, text: str) -> None:
        """State a promise, kept or not."""
        (self.say.good if holds else self.say.bad)(text)
        self.failures += not holds

    def deploy(self) -> None:
        """Bare nodes become a cluster."""
        self.say.chapter("1. One playbook turns three bare nodes into a cluster")
        self.lab.ensure()
        self.say.tell(f"nodes n1, n2, n3 and a client are booted; deploying {INVENTORY.relative_to(ROOT)}")
        began = time.monotonic()
        playbook("deploy")
        self.say.figure("deploy", "seconds", round(time.monotonic() - began, 1))
        for node in self.nodes[:2]:
            cluster.wait_state(node, "db", "PRIM,SECOND", 60)
        for node in self.nodes:
            cluster.wait_state(node, "web", "UP", 60)
        self.require(True, f"module db: {self.roles()}; module web: UP on n1, n2, n3")

    def roles(self) -> str:
        """Who is what in the mirror."""
        return ", ".join(f"{node.name} {cluster.state(node, 'db')['state']}" for node in self.nodes[:2])

    def load(self) -> None:
        """pgbench through the virtual address."""
        self.say.chapter("2. Load on the database, through its virtual address")
        server = self.primary()
        self.ledger.prepare(server)
        self.ledger.start()
        time.sleep(5)
        promises = self.ledger.promises()
        if not promises.count:
            raise StoryFailed(f"pgbench commits nothing: {self.ledger.failed()[-1:] or 'no message'}")
        rate = promises.count / max(promises.times[-1] - promises.times[0], 1e-3)
        self.say.figure("db", "tps", round(rate))
        self.say.tell(f"pgbench: 4 clients, about {rate:.0f} transactions a second on {server.name}, replicated")

    def primary(self) -> Node:
        """The node that serves the database."""
        found = cluster.primary(self.nodes[:2], "db")
        if found is None:
            raise StoryFailed(f"nobody serves the database: {self.roles()}")
        return found

    def power_cut(self) -> None:
        """The primary dies under load."""
        self.say.chapter("3. The primary loses its power")
        victim = self.primary()
        survivor = next(node for node in self.nodes[:2] if node is not victim)
        asked = time.time()
        victim.power_cut()
        cluster.wait_state(survivor, "db", "ALONE", 60)
        noticed = self.when_noticed(survivor, asked)
        back = self.await_commit(noticed)
        # The power failed when the client's last commit before the silence was answered, or later: the strictest reading.
        cut = max([asked, *(moment for moment in self.ledger.promises().times if moment < noticed)])
        self.say.tell(f"power of {victim.name} cut; what it had not synced is gone")
        self.say.figure("db", "detection_s", round(noticed - cut, 2))
        self.say.figure("db", "service_back_s", round(back - cut, 2))
        self.say.tell(f"{survivor.name} noticed after {noticed - cut:.2f} s and took over")
        self.require(True, f"first commit through the address {back - cut:.2f} s after the cut, on {survivor.name}")
        self.victim = victim

    def when_noticed(self, survivor: Node, since: float) -> float:
        """When the survivor lost the last heartbeat."""
        for date, text in cluster.log_after(survivor, "db", since):
            if text.startswith("no heartbeat"):
                return date
        raise StoryFailed(f"{survivor.name} took over without having lost a heartbeat")

    def await_commit(self, moment: float) -> float:
        """When the first commit after `moment` was answered."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            first = self.ledger.promises().first_after(moment)
            if first is not None:
                return first
            time.sleep(0.3)
        raise StoryFailed(f"no commit within 60 s; pgbench says {self.ledger.failed()[-1:]}; {self.roles()}")

    def come_back(self) -> None:
        """The dead node returns and is resynchronised under load."""
        self.say.chapter("4. The dead node comes back")
        self.victim.power_on()
        booted = time.monotonic()
        self.say.tell(f"{self.victim.name} booted; its modules start by themselves and it resynchronises under load")
        cluster.wait_state(self.victim, "db", "SECOND", 180)
        took = time.monotonic() - booted
        self.say.figure("db", "resync_s", round(took, 2))
        self.require(True, f"{self.victim.name} is SECOND (Ready) again {took:.1f} s after its boot: {self.roles()}")

    def swap(self) -> None:
        """Roles are exchanged under load."""
        self.say.chapter("5. Swap: maintenance without a night shift")
        before = self.primary()
        other = next(node for node in self.nodes[:2] if node is not before)
        cluster.wait_state(before, "db", "PRIM", 60)
        began, moment = time.monotonic(), time.time()
        cluster.action(before, "db", "swap")
        cluster.wait_state(other, "db", "PRIM", 90)
        took = time.monotonic() - began
        cluster.wait_state(before, "db", "SECOND", 90)
        self.await_commit(time.time())
        gap = self.ledger.promises().longest_gap(moment, time.time())
        self.say.figure("db", "swap_s", round(took, 2))
        self.say.figure("db", "swap_interruption_s", round(gap, 2))
        self.require(True, f"{other.name} is PRIM {took:.2f} s after the command; clients waited {gap:.2f} s at most")

    def audit(self) -> None:
        """Every promise is kept."""
        self.say.chapter("6. Is every transaction that a client saw committed still there?")
        promises = self.ledger.stop()
        lost = self.ledger.lost(promises)
        self.say.figure("db", "committed", promises.count)
        self.say.figure("db", "committed_lost", lost)
        self.require(lost == 0, f"{promises.count} transactions were promised, {lost} are missing")

    def farm(self) -> None:
        """A farm node dies: only its clients move."""
        self.say.chapter("7. The web farm: 120 clients, three servers, no load balancer")
        self.web.prepare()
        before = self.web.ask()
        self.say.figure("web", "share", before.shares)
        self.require(before.served_pct == 100.0, f"requests per node: {before.shares}")
        victim = self.nodes[2]
        victim.power_cut()
        self.say.tell(f"power of {victim.name} cut")
        survivors = {node.name for node in self.nodes[:2]}
        began = time.monotonic()
        for node in self.nodes[:2]:
            node.wait_for(
                "the farm without n3", "safekit log -m web | tail -4 | grep -q 'membership: n1, n2 '", timeout=30
            )
        self.say.tell(f"n1 and n2 shared its clients {time.monotonic() - began:.1f} s later")
        after = self.web.ask()
        moved = after.moved_from(before, survivors)
        of_survivors = sum(node in survivors for node in before.answers.values())
        self.say.figure("web", "served_after_death_pct", after.served_pct)
        self.say.figure("web", "moved_pct_of_surviving_clients", round(100.0 * len(moved) / of_survivors, 2))
        self.require(after.served_pct == 100.0, f"{after.served_pct} % of the clients are served: {after.shares}")
        self.require(not moved, f"{len(moved)} of {of_survivors} clients of the survivors moved")
        victim.power_on()
        cluster.wait_state(victim, "web", "UP", 60)
        again = self.web.ask()
        self.say.figure("web", "share_after_return", again.shares)
        self.require(again.answers == before.answers, f"n3 is back with its former clients: {again.shares}")

    def farewell(self) -> None:
        """Leave the cluster running."""
        self.say.chapter("The cluster is yours")
        for line in (
            "lab/engine exec -it n1 safekit state                what runs where, and why",
            "lab/engine exec -it n1 safekit log -m db            what happened",
            "lab/engine exec -it n1 safekit swap -m db           exchange the roles",
            ".venv/bin/ansible-playbook -i inventories/demo playbooks/status.yml",
            "make clean                                          remove everything",
        ):
            self.say.tell(line)


def playbook(name: str) -> None:
    """Run one of the top-level playbooks on the demo inventory; its output goes to a log."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    command = [str(ROOT / ".venv" / "bin" / "ansible-playbook"), "-i", str(INVENTORY), f"playbooks/{name}.yml"]
    environment = os.environ | {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"}
    with LOG.open("w") as log:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        failed = [line for line in LOG.read_text().splitlines() if line.startswith(("fatal", "[ERROR]", "ERROR"))]
        detail = failed[0][:300] if failed else "see the log"
        raise StoryFailed(
            f"playbooks/{name}.yml ended with {done.returncode}: {detail} (all of it: {LOG.relative_to(ROOT)})"
        )


def main() -> int:
    """Exit code 0 when every promise was kept."""
    narrator = Narrator(colour=sys.stdout.isatty())
    story = Story(narrator)
    try:
        story.play()
    except (StoryFailed, TimeoutError, RuntimeError) as error:
        narrator.bad(str(error))
        story.failures += 1
        story.lab.collect(ROOT / "build" / "reports" / "demo-nodes")
    narrator.figure("demo", "seconds", round(narrator.elapsed(), 1))
    narrator.figure("demo", "failures", story.failures)
    narrator.write(REPORT)
    narrator.tell(f"figures: {REPORT.relative_to(ROOT)}")
    return 1 if story.failures else 0


if __name__ == "__main__":
    sys.exit(main())
