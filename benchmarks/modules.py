"""Thirty-two replicated modules on one pair of nodes: that they work, and what they cost each node at rest.

python -m benchmarks modules          the lab of SAFEKIT_LAB_NUMBER; build/reports/modules.json
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from tests.nodes import CommandFailed, Lab, Node
from tests.nodes.engine import ROOT
from tests.nodes.runtime import install_runtime
from tests.system.membership import form_cluster
from tests.system.product import package, safekit, wait_state

MODULES = 32
SECONDS = 20
REPORT = ROOT / "build" / "reports" / "modules.json"
_HANDS = 4

_READ = """\
import json, os, sys, time
def processes():
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline").read().split("\\0")
            fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
            status = open(f"/proc/{pid}/status").read().splitlines()
            resident = int(next(line.split()[1] for line in status if line.startswith("VmRSS")))
        except (OSError, StopIteration):
            continue
        names = ("safekit-rfs", "safekit-pulse", "safekitd")
        name = next((name for name in names if any(name in word for word in words[:3])), "")
        if name:
            found[pid] = (name, int(fields[11]) + int(fields[12]), resident)
    return found
before, began = processes(), time.monotonic()
time.sleep(float(sys.argv[1]))
after, took = processes(), time.monotonic() - began
total = {}
for pid, (name, ticks, resident) in after.items():
    one = total.setdefault(name, {"processes": 0, "memory_mb": 0.0, "processor_pct": 0.0})
    one["processes"] += 1
    one["memory_mb"] += resident / 1024
    one["processor_pct"] += 100 * (ticks - before.get(pid, (name, ticks, 0))[1]) / os.sysconf("SC_CLK_TCK") / took
print(json.dumps(total))
"""


@dataclass(frozen=True)
class Cost:
    """All processes of one name on one node. Resident MiB, and per cent of one core over SECONDS at rest."""

    node: str
    name: str
    processes: int
    memory_mb: float
    processor_pct: float


def _name(number: int) -> str:
    return f"s{number:02}"


def _folder(number: int) -> str:
    return f"/data/{_name(number)}"


def _module(number: int) -> bytes:
    config = f"""\
<safe><service mode="mirror" boot="off">
  <heart pulse="500ms" timeout="10s"><heartbeat name="pair"/></heart>
  <rfs async="second"><replicated dir="{_folder(number)}"/></rfs>
  <user/>
</service></safe>
"""
    scripts = {f"bin/{name}": "#!/bin/sh\nexit 0\n" for name in ("start_prim", "stop_prim")}
    return package({"conf/userconfig.xml": config, **scripts})


def _install(pair: tuple[Node, Node], number: int) -> None:
    name = _name(number)
    for node in pair:
        node.run(f"mkdir -p {_folder(number)}; rm -rf {_folder(number)}/*")
        node.write(f"/tmp/{name}.safe", _module(number))
        safekit(node, f"module install -m {name} /tmp/{name}.safe -M {number + 20} -r", timeout=120)
        safekit(node, f"config -m {name}", timeout=120)
    safekit(pair[0], f"prim -m {name}", timeout=120)
    wait_state(pair[0], name, "ALONE", timeout=120)
    safekit(pair[1], f"second -m {name}", timeout=120)
    wait_state(pair[0], name, "PRIM", timeout=120)
    wait_state(pair[1], name, "SECOND", timeout=120)


def _remove(pair: tuple[Node, Node], number: int) -> None:
    name = _name(number)
    for node in reversed(pair):
        try:
            safekit(node, f"forcestop -m {name}", check=False, timeout=120)
            wait_state(node, name, "STOP", substate="NotReady", timeout=60)
            safekit(node, f"module uninstall -m {name}", check=False, timeout=120)
        except (AssertionError, CommandFailed) as error:
            print(f"{node.name}: {name} was not removed: {error}")


def measure(count: int = MODULES, seconds: int = SECONDS) -> list[Cost]:
    """Installs the modules, writes through each, looks at both nodes for `seconds`, removes them. AssertionError when
    one does not replicate."""
    lab = Lab.here()
    lab.ensure()
    install_runtime(lab.nodes)
    form_cluster(lab)
    pair = (lab["n1"], lab["n2"])
    numbers = range(1, count + 1)
    try:
        with ThreadPoolExecutor(_HANDS) as hands:
            for _ in hands.map(lambda number: _install(pair, number), numbers):
                pass
        for number in numbers:
            pair[0].run(f"echo {number} >{_folder(number)}/written")
        there = pair[1].out("cat " + " ".join(f"{_folder(number)}/written" for number in numbers)).split()
        assert there == [str(number) for number in numbers], f"not everything is on {pair[1].name}: {there}"
        running = [(node, node.start(["python3", "-c", _READ, str(seconds)])) for node in pair]
        return [
            Cost(node.name, name, found["processes"], round(found["memory_mb"], 1), round(found["processor_pct"], 2))
            for node, command in running
            for name, found in sorted(json.loads(command.wait(seconds + 60).out).items())
        ]
    finally:
        with ThreadPoolExecutor(_HANDS) as hands:
            for _ in hands.map(lambda number: _remove(pair, number), numbers):
                pass


def main() -> int:
    """Measure, print, write."""
    costs = measure()
    print(f"{MODULES} replicated modules on one pair of nodes, all in mirror, {SECONDS} s at rest")
    print(f"{'node':6} {'process':16} {'count':>6} {'memory':>12} {'processor':>12}")
    for cost in costs:
        print(f"{cost.node:6} {cost.name:16} {cost.processes:6} {cost.memory_mb:9.1f} MB {cost.processor_pct:10.2f} %")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    found = {"modules": MODULES, "seconds": SECONDS, "costs": [asdict(cost) for cost in costs]}
    REPORT.write_text(json.dumps(found, indent=2) + "\n")
    print(REPORT.relative_to(ROOT))
    return 0
