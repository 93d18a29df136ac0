"""Thirty-two replicated modules on one pair of nodes: that they work, and what they cost each node at rest.

python -m benchmarks modules          the lab of SAFEKIT_LAB_NUMBER; build/reports/modules.json
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from tests.nodes import CommandFailed, Lab, Node
from tests.nodes.engine import ROOT
from tests.nodes.runtime import install_runtime
from tests.system.membership import form_cluster
from tests.system.product import package

MODULES = 32
SECONDS = 20
REPORT = ROOT / "build" / "reports" / "modules.json"
_LIMIT_S = 240.0

_READ = """\
import json, os, sys, time
def processes():
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            unit = open(f"/proc/{pid}/cgroup").read().strip().rpartition("/")[2]
            name = unit.removesuffix(".service").partition("@")[0]
            if name not in ("safekit-rfs", "safekit-pulse", "safekitd"):
                continue
            fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
            share = open(f"/proc/{pid}/smaps_rollup").read().splitlines()
            memory = int(next(line.split()[1] for line in share if line.startswith("Pss:")))
        except (OSError, StopIteration):
            continue
        found[pid] = (name, int(fields[11]) + int(fields[12]), memory)
    return found
before, began = processes(), time.monotonic()
time.sleep(float(sys.argv[1]))
after, took = processes(), time.monotonic() - began
total = {}
for pid, (name, ticks, memory) in after.items():
    one = total.setdefault(name, {"processes": 0, "memory_mb": 0.0, "processor_pct": 0.0})
    one["processes"] += 1
    one["memory_mb"] += memory / 1024
    one["processor_pct"] += 100 * (ticks - before.get(pid, (name, ticks, 0))[1]) / os.sysconf("SC_CLK_TCK") / took
print(json.dumps(total))
"""
"""Memory is each process's share (Pss): what several of them map counts once."""

_ASK = """\
import http.client, json, socket, sys
class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(90)
        self.sock.connect("/run/safekit/safekitd.sock")
for verb, path, body in json.load(sys.stdin):
    local = Local("safekit")
    local.request(verb, "/api/v1" + path, json.dumps(body) if body is not None else None,
                  {"Content-Type": "application/json"})
    answer = local.getresponse()
    text = answer.read().decode()
    if answer.status >= 400:
        sys.exit(f"{verb} {path}: {answer.status} {text[:300]}")
"""
"""A list of questions to the API of a node, one after the other: the command would start a Python for each."""


@dataclass(frozen=True)
class Cost:
    """All processes of one unit's name on one node. MiB, and per cent of one core over `SECONDS` at rest."""

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


_Question = tuple[str, str, object]


def _ask(node: Node, questions: Iterable[_Question]) -> None:
    node.run(["python3", "-c", _ASK], input=json.dumps(list(questions)).encode(), timeout=_LIMIT_S)


def _installed(numbers: range) -> list[_Question]:
    questions: list[_Question] = []
    for number in numbers:
        packed = base64.b64encode(_module(number)).decode()
        questions += [
            ("PUT", f"/modules/{_name(number)}", {"package": packed, "id": number + 20, "replace": True}),
            ("POST", f"/modules/{_name(number)}/config", {}),
        ]
    return questions


def _moved(numbers: range, action: str) -> list[_Question]:
    return [("POST", f"/modules/{_name(number)}/actions/{action}", {}) for number in numbers]


def _awaited(numbers: range, state: str, substate: str = "Ready") -> list[_Question]:
    return [
        ("GET", f"/modules/{_name(number)}/wait?state={state}&substate={substate}&timeout=60", None)
        for number in numbers
    ]


def _each(pair: tuple[Node, Node], action: Callable[[Node], object]) -> None:
    with ThreadPoolExecutor(len(pair)) as hands:
        list(hands.map(action, pair))


def _remove(node: Node, numbers: range) -> None:
    removed: list[_Question] = [("DELETE", f"/modules/{_name(number)}", None) for number in numbers]
    try:
        _ask(node, [*_moved(numbers, "forcestop"), *_awaited(numbers, "STOP", "NotReady"), *removed])
    except CommandFailed as error:
        print(f"{node.name}: not everything was removed: {error}")


def measure(count: int = MODULES, seconds: int = SECONDS) -> list[Cost]:
    """Installs the modules, writes through each, looks at both nodes for `seconds`, removes them. AssertionError when
    one does not replicate."""
    lab = Lab.here()
    lab.ensure()
    install_runtime(lab.nodes)
    form_cluster(lab)
    pair = primary, secondary = (lab["n1"], lab["n2"])
    numbers = range(1, count + 1)
    folders = " ".join(_folder(number) for number in numbers)
    try:
        _each(pair, lambda node: node.run(f"rm -rf {folders}; mkdir -p {folders}"))
        _each(pair, lambda node: _ask(node, _installed(numbers)))
        _ask(primary, [*_moved(numbers, "prim"), *_awaited(numbers, "ALONE")])
        _ask(secondary, [*_moved(numbers, "second"), *_awaited(numbers, "SECOND")])
        _ask(primary, _awaited(numbers, "PRIM"))
        primary.run(f"for folder in {folders}; do echo $folder >$folder/written; done")
        there = secondary.out("cat " + " ".join(f"{_folder(number)}/written" for number in numbers)).split()
        assert there == folders.split(), f"not everything is on {secondary.name}: {there}"
        running = [(node, node.start(["python3", "-c", _READ, str(seconds)])) for node in pair]
        return [
            Cost(node.name, name, found["processes"], round(found["memory_mb"], 1), round(found["processor_pct"], 2))
            for node, command in running
            for name, found in sorted(json.loads(command.wait(seconds + 60).out).items())
        ]
    finally:
        for node in (secondary, primary):
            _remove(node, numbers)


def main() -> int:
    """Measure, print, write."""
    began = time.monotonic()
    costs = measure()
    took = round(time.monotonic() - began, 1)
    print(f"{MODULES} replicated modules on one pair of nodes, all in mirror, {SECONDS} s at rest; {took} s in all")
    print(f"{'node':6} {'process':16} {'count':>6} {'memory':>12} {'processor':>12}")
    for cost in costs:
        print(f"{cost.node:6} {cost.name:16} {cost.processes:6} {cost.memory_mb:9.1f} MB {cost.processor_pct:10.2f} %")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    found = {"modules": MODULES, "seconds": SECONDS, "took_seconds": took, "costs": [asdict(cost) for cost in costs]}
    REPORT.write_text(json.dumps(found, indent=2) + "\n")
    print(REPORT.relative_to(ROOT))
    return 0
