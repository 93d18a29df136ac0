"""What the product costs a node at rest: memory and processor of `safekitd` and `safekit-pulse` with two modules."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from tests.nodes import Lab, Node
from tests.nodes.runtime import install_runtime
from tests.system.farm import Farm
from tests.system.membership import form_cluster
from tests.system.mirror import Mirror

MEMORY_LIMIT_MB = 80.0
PROCESSOR_LIMIT_PCT = 2.0
SECONDS = 60

_READ = """\
import json, os, subprocess, sys, time
def pid(unit):
    words = ["systemctl", "show", "--property=MainPID", "--value", unit]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
def ticks(pid):
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
def memory_kb(pid):
    return int(next(line.split()[1] for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS")))
units = json.loads(sys.argv[1])
pids = {unit: pid(unit) for unit in units}
before, began = {unit: ticks(pids[unit]) for unit in units}, time.monotonic()
time.sleep(float(sys.argv[2]))
took = time.monotonic() - began
per_second = os.sysconf("SC_CLK_TCK")
print(json.dumps({unit: {
    "memory_mb": memory_kb(pids[unit]) / 1024,
    "processor_pct": 100 * (ticks(pids[unit]) - before[unit]) / per_second / took,
} for unit in units}))
"""


@dataclass(frozen=True)
class Cost:
    """One process on one node. `memory_mb`: resident, in MiB; `processor_pct`: of one core, over SECONDS at rest."""

    node: str
    unit: str
    memory_mb: float
    processor_pct: float

    @property
    def kept(self) -> bool:
        """Whether it stays within what is promised of `safekitd`."""
        return self.memory_mb <= MEMORY_LIMIT_MB and self.processor_pct <= PROCESSOR_LIMIT_PCT

    def as_dict(self) -> dict[str, object]:
        """For the report."""
        return {**asdict(self), "kept": self.kept}


def measure(seconds: int = SECONDS) -> list[Cost]:
    """Boot the nodes, install a mirror and a farm, wait for rest, and look for `seconds`."""
    lab = Lab.here()
    lab.ensure()
    install_runtime(lab.nodes)
    form_cluster(lab)
    mirror, farm = Mirror(lab), Farm(lab)
    mirror.install()
    mirror.first_start(mirror.nodes[0])
    farm.install()
    farm.make_ready()
    try:
        running = {node.name: node.start(_command(seconds)) for node in mirror.nodes}
        return [
            Cost(name, unit, round(float(found["memory_mb"]), 1), round(float(found["processor_pct"]), 2))
            for name, command in running.items()
            for unit, found in json.loads(command.wait(seconds + 60).out).items()
        ]
    finally:
        farm.uninstall()
        mirror.uninstall()


def _command(seconds: int) -> list[str]:
    units = ["safekitd.service", "safekit-pulse.service", "safekit-rfs@m.service"]
    return ["python3", "-c", _READ, json.dumps(units), str(seconds)]


def load_of(node: Node) -> str:
    """How busy the machine under the nodes was: a figure taken beside others is worth less."""
    return f"{os.getloadavg()[0]:.1f} on {node.out('nproc')} cores"
