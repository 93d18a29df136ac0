"""Who stands beside whom when a farm serves HTTP: the same small server on every node of a wire in network namespaces, asked
directly, through a virtual address of ours, and through haproxy (spec §5.3, §5.4).

All are there all the time, on the same two or more processors as the client; only one is asked at a time. IPVS is asked too
where the kernel has it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from safekit.vip.farm import FarmVip
from safekit.vip.service import BalancingGroup, BalancingRule, FarmService, HashKey, Member, Protocol, VirtualAddress
from tests.netns.lab import Lab, Node, wire

DIRECT, THREE, LOCAL, DIRECTED, HAPROXY, IPVS = "direct", "three", "local", "directed", "haproxy", "ipvs"
SYSTEMS = (DIRECT, THREE, LOCAL, DIRECTED, HAPROXY, IPVS)
TITLES = {
    DIRECT: "one server, without rules",
    THREE: "three servers, each asked directly, without rules",
    LOCAL: "ours, one server, its own buckets",
    DIRECTED: "ours, vmac_directed over three servers",
    HAPROXY: "haproxy, TCP mode, over three servers",
    IPVS: "IPVS, direct routing, over three servers",
}
WORKS = {"keep-alive": "HTTP, keep-alive", "per-request": "HTTP, one connection per request"}
CONNECTIONS = 32
_PORT = 80
_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/{name}.pid;
error_log {folder}/{name}.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/{name}.body; proxy_temp_path {folder}/{name}.proxy; fastcgi_temp_path {folder}/{name}.f;
  uwsgi_temp_path {folder}/{name}.u; scgi_temp_path {folder}/{name}.s;
  server {{ listen {port} backlog=4096; location / {{ return 200 "{name}\\n"; }} }}
}}
"""
_HAPROXY = """\
global
  nbthread {threads}
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen web
  bind 0.0.0.0:{port} backlog 4096
  balance roundrobin
{servers}
"""


class NotRun(Exception):
    """A system that cannot be measured here; the text says why."""


@dataclass(frozen=True)
class Asked:
    """What one run of the client found: requests answered per second, and how many failed."""

    rate: float
    failed: int


class Balanced:
    """The wire with all that is measured on it. `ask` measures one system."""

    def __init__(self, lab: Lab, folder: Path, stack: ExitStack) -> None:
        self._lab, self._folder, self._stack = lab, folder, stack
        self.why_not: dict[str, str] = {}
        self.targets: dict[str, str] = {}
        servers = list(lab.servers.values())
        plain = [Node(f"plain{number}", 20 + number) for number in (1, 2, 3)]
        alone, proxy = Node("alone", 31), Node("proxy", 32)
        for node in (*plain, alone, proxy):
            stack.callback(node.close)
            lab.plug(node)
        for node in (*servers, *plain, alone):
            self._nginx(node)
        self.targets[DIRECT] = plain[0].address4
        self.targets[THREE] = " ".join(node.address4 for node in plain)
        self.targets[LOCAL] = self._farm("alone", [alone], "10.66.0.101")
        self.targets[DIRECTED] = self._farm("web", servers, "10.66.0.100")
        for system, prepare in ((HAPROXY, self._haproxy), (IPVS, self._ipvs)):
            try:
                prepare(proxy, servers)
                self.targets[system] = proxy.address4 if system == HAPROXY else "10.66.0.102"
            except NotRun as why:
                self.why_not[system] = str(why)
        lab.client.command("sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1")
        for system in self.targets:
            self.ask(system, "keep-alive", 1)  # everything is loaded and resolved once

    def ask(self, system: str, work: str, seconds: int) -> Asked:
        """Requests per second that the client gets answered; of several servers each gets a part of the connections."""
        addresses = self.targets[system].split()
        connections = CONNECTIONS // len(addresses)
        words = ["wrk", "-t2" if len(addresses) == 1 else "-t1", f"-c{connections}", f"-d{seconds}s"]
        if work == "per-request":
            words += ["-H", "Connection: close"]
        asking = [self._asks([*words, f"http://{address}:{_PORT}/"]) for address in addresses]
        rate, failed = 0.0, 0
        for one in asking:
            said, trouble = one.communicate(timeout=seconds + 20)
            found = re.search(r"Requests/sec:\s*([\d.]+)", said)
            if one.returncode or found is None or "Non-2xx" in said:
                raise RuntimeError(f"{system}, {work}: {said} {trouble}")
            rate += float(found[1])
            # After `Connection: close` the client counts the end of the connection as a failed read.
            if errors := re.search(r"Socket errors: connect (\d+), read \d+, write (\d+), timeout (\d+)", said):
                failed += sum(map(int, errors.groups()))
        return Asked(rate, failed)

    def _asks(self, words: list[str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return self._lab.client.run(
            lambda: subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        )

    def _start(self, node: Node, *words: str) -> None:
        process = node.run(
            lambda: subprocess.Popen(
                words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
        )

        def end() -> None:
            process.terminate()
            process.wait(10)

        self._stack.callback(end)

    def _nginx(self, node: Node) -> None:
        file = self._folder / f"{node.name}.conf"
        file.write_text(_NGINX.format(folder=self._folder, name=node.name, port=_PORT))
        self._start(node, _program("nginx"), "-c", str(file), "-e", str(self._folder / f"{node.name}.first.log"))
        self._answers(node)

    def _haproxy(self, node: Node, servers: list[Node]) -> None:
        names = "\n".join(f"  server {one.name} {one.address4}:{_PORT}" for one in servers)
        file = self._folder / "haproxy.cfg"
        file.write_text(_HAPROXY.format(threads=2, port=_PORT, servers=names))
        self._start(node, _program("haproxy"), "-db", "-q", "-f", str(file))
        self._answers(node)

    def _ipvs(self, node: Node, servers: list[Node]) -> None:
        if not Path("/proc/net/ip_vs").exists():
            raise NotRun("this kernel has no IPVS")
        program, address = _program("ipvsadm"), "10.66.0.102"
        node.command("ip", "address", "add", f"{address}/32", "dev", "eth0")
        node.command(program, "-A", "-t", f"{address}:{_PORT}", "-s", "rr")
        for one in servers:
            one.command("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
            one.command("ip", "address", "add", f"{address}/32", "dev", "lo")
            node.command(program, "-a", "-t", f"{address}:{_PORT}", "-r", one.address4, "-g")

    def _farm(self, module: str, nodes: list[Node], address: str) -> str:
        """These nodes share the address, each with its own daemon's part."""
        rule = BalancingRule(Protocol.TCP, HashKey.ON_PORT, None, _PORT)
        service = FarmService((VirtualAddress(ip_address(address)),), (BalancingGroup("web", (rule,)),))
        names = [node.name for node in nodes]
        vips = {
            node: FarmVip(module, service, node.name, "benchmark", self._folder / node.name, names) for node in nodes
        }
        view = {node.name: Member(node.run(vip.macs)) for node, vip in vips.items()}
        for node, vip in vips.items():
            node.run(vip.up, view)
        return address

    def _answers(self, node: Node) -> None:
        """Wait until a program listens there."""
        until = time.monotonic() + 20
        while True:
            words = ["curl", "-s", "-m", "2", "-o", "/dev/null", f"http://{node.address4}:{_PORT}/"]
            if self._lab.client.run(lambda: subprocess.run(words, check=False).returncode) == 0:  # noqa: B023
                return
            if time.monotonic() > until:
                raise RuntimeError(f"nobody listens on {node.name}")
            time.sleep(0.1)


@contextmanager
def balanced(folder: Path) -> Iterator[Balanced]:
    """Everything runs and answers; nothing is left afterwards."""
    with wire() as lab, ExitStack() as stack:
        yield Balanced(lab, folder, stack)


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise NotRun(f"{name} is not installed: make/prerequisites nginx-light haproxy wrk")
    return found
