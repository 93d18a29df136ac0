"""One node: run commands on it, bring files, and do to it what fate does."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import subprocess
import tarfile
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from tests.nodes.disk import Disk
from tests.nodes.engine import ROOT, CommandFailed, Engine, Result, beside_the_nodes, run
from tests.nodes.plan import NodePlan
from tests.nodes.waiting import wait_for

Command = str | Sequence[str]
_numbers = itertools.count(1)


def _words(command: Command) -> list[str]:
    return ["bash", "-c", command] if isinstance(command, str) else list(command)


class Running:
    """A command that runs on a node while the test goes on."""

    def __init__(self, node: Node, command: Command) -> None:
        self._node = node
        self.command = command if isinstance(command, str) else shlex.join(command)
        self._pid_file = f"/run/test-{os.getpid()}-{next(_numbers)}.pid"
        held = ["setsid", "--wait", "bash", "-c", f'echo $$ >{self._pid_file}; "$@"', "bash", *_words(command)]
        self._process = subprocess.Popen(
            node.engine.command("exec", node.container, *held),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def wait(self, timeout: float = 60, *, check: bool = True) -> Result:
        """Its end. CommandFailed when it has not ended after `timeout` seconds, or (`check`) ended badly."""
        try:
            out, err = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, err = self._process.communicate()
            self._signal("KILL")
            late = f"{err.decode(errors='replace')}\nnot ended after {timeout:g} s"
            raise CommandFailed(Result(self.command, -1, out.decode(errors="replace"), late)) from None
        result = Result(
            self.command, self._process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
        )
        if check and not result.ok:
            raise CommandFailed(result)
        return result

    def stop(self, timeout: float = 20) -> Result:
        """End it with SIGTERM (and all that it started), and return what it left."""
        if self.alive:
            self._signal("TERM")
        return self.wait(timeout, check=False)

    def _signal(self, name: str) -> None:
        self._node.run(f"kill -{name} -- -$(cat {self._pid_file})", check=False, timeout=10)


class Node:
    """A booted (or powered off) node of the lab."""

    def __init__(self, plan: NodePlan, engine: Engine, disk: Disk | None) -> None:
        self.plan = plan
        self.engine = engine
        self.disk = disk
        self.name = plan.name
        self.container = plan.container
        self.address = plan.address
        self.address6 = plan.address6
        self.mac = plan.mac

    def __repr__(self) -> str:
        return f"Node({self.name})"

    # --- commands and files

    def run(
        self,
        command: Command,
        *,
        input: bytes | None = None,
        timeout: float = 60,
        check: bool = True,
        user: str = "root",
    ) -> Result:
        """Run a command (a shell line, or words) on the node; it is killed there too after `timeout` seconds."""
        options = ["--interactive"] if input is not None else []
        limit = ["timeout", "--kill-after=2", f"{timeout:g}"]
        args = ["exec", *options, "--user", user, self.container, *limit, *_words(command)]
        return self.engine.run(*args, input=input, timeout=timeout + 10, check=check)

    def out(self, command: Command, *, timeout: float = 60, user: str = "root") -> str:
        """What a command prints, without the blanks around it."""
        return self.run(command, timeout=timeout, user=user).out.strip()

    def succeeds(self, command: Command, *, timeout: float = 60) -> bool:
        """Whether a command ends with exit code 0."""
        return self.run(command, timeout=timeout, check=False).ok

    def start(self, command: Command) -> Running:
        """Start a command and go on. End it with `stop` or `wait`."""
        return Running(self, command)

    def put(self, source: Path, target: str) -> None:
        """Copy a file or folder of this machine to `target` on the node (a folder's content goes into `target`)."""
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(source, arcname="." if source.is_dir() else Path(target).name)
        folder = target if source.is_dir() else str(Path(target).parent)
        self.run(["mkdir", "-p", folder])
        self.run(["tar", "-C", folder, "--no-same-owner", "-xf", "-"], input=packed.getvalue())

    def write(self, target: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Write a file on the node."""
        data = content.encode() if isinstance(content, str) else content
        path = shlex.quote(target)
        self.run(f"mkdir -p $(dirname {path}) && cat >{path} && chmod {mode:o} {path}", input=data)

    def get(self, source: str, target: Path) -> Path:
        """Copy a file of the node to `target` on this machine."""
        target.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            self.engine.command("exec", self.container, "cat", source), capture_output=True, timeout=60
        )
        if done.returncode:
            raise CommandFailed(Result(f"get {source} from {self.name}", done.returncode, "", done.stderr.decode()))
        target.write_bytes(done.stdout)
        return target

    def journal(self, unit: str | None = None, lines: int = 2000) -> str:
        """The journal since the node was powered on; of one unit when it is named."""
        one = ["--unit", unit] if unit else []
        return self.run(
            ["journalctl", "--boot", "--no-pager", "--output=short-precise", f"--lines={lines}", *one], check=False
        ).out

    def wait_for(self, what: str, command: Command, *, timeout: float = 30, every: float = 0.2) -> str:
        """Repeat a command until it succeeds; what it printed. NotInTime with the end of the journal otherwise."""
        result = wait_for(
            f"{self.name}: {what}",
            lambda: self.run(command, timeout=timeout),
            timeout=timeout,
            every=every,
            last_words=lambda: self.journal(lines=40) if self.is_on() else f"{self.name} is powered off",
        )
        return result.out.strip()

    # --- power

    def is_on(self) -> bool:
        """Whether it has power."""
        return (
            self.engine.run("inspect", "--format", "{{.State.Running}}", self.container, check=False).out.strip()
            == "true"
        )

    def power_cut(self, *, lose_unsynced: bool = True) -> None:
        """The power fails: every process ends at once, no farewell leaves the node, what was not synced is lost."""
        disk = str(self.disk.mounted_at) if self.disk and lose_unsynced else ""
        cut = [str(ROOT / "lab" / "cut-power"), self.port(), str(self._pid()), disk]
        if self._may_touch_ports():
            run(beside_the_nodes(*cut))
        else:
            self.engine.run("kill", "--signal=KILL", self.container)
        self.engine.run("wait", self.container, timeout=30)
        if disk and self.disk:
            self.disk.unmount()

    def power_on(self, *, wait: bool = True) -> None:
        """Power it on, and (`wait`) wait until it has booted. Cuts of the network last."""
        if self.disk:
            self.disk.mount()
        self.engine.run("start", self.container, timeout=60)
        self.mark_port()
        if wait:
            self.wait_booted()

    def power_off(self) -> None:
        """An orderly end: the services stop first."""
        self.run("systemctl poweroff", check=False, timeout=15)
        self.engine.run("wait", self.container, timeout=120)

    def reboot(self, *, wait: bool = True) -> None:
        """An orderly reboot, and (`wait`) wait until it has booted."""
        self.run("systemctl reboot", check=False, timeout=15)
        self.engine.run("wait", self.container, timeout=120)
        self.power_on(wait=wait)

    def follow_reboot(self) -> None:
        """It was told to restart itself: wait for the end of its services, power it on again, and wait until it has booted."""
        self.engine.run("wait", self.container, timeout=120)
        self.power_on()

    def wait_booted(self, timeout: float = 60) -> None:
        """Wait until systemd has started everything. A failed unit is no failed boot."""
        command = ["systemctl", "is-system-running", "--wait"]

        def booted() -> bool:
            state = self.run(command, timeout=timeout, check=False).out.strip()
            assert state in ("running", "degraded"), state or "no answer from systemd"
            return True

        wait_for(f"{self.name} has booted", booted, timeout=timeout)

    def freeze(self, *, network: bool = True) -> None:
        """The node hangs: no process runs.

        Its kernel would still answer ping and accept connections: with `network`, it hears and says nothing either (the
        cable stays in).
        """
        if network:
            self._port_state("0")
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        self._signal_all(signal.SIGCONT)
        self._port_state("3")

    # --- cable

    def pull_cable(self) -> None:
        """Unplug the network: the node sees its carrier go."""
        run(beside_the_nodes("ip", "link", "set", "dev", self.port(), "down"))

    def plug_cable(self) -> None:
        """Plug it in again."""
        run(beside_the_nodes("ip", "link", "set", "dev", self.port(), "up"))

    def port(self) -> str:
        """The bridge's end of the node's cable; '' when it has none (powered off)."""
        found = run(beside_the_nodes("ip", "-json", "link", "show", "group", str(self.plan.group)), check=False)
        links = [link for link in json.loads(found.out or "[]") if link]
        return str(links[0]["ifname"]) if links else ""

    def mark_port(self) -> None:
        """Give the bridge's end of the cable the node's number, by which the cuts know whom they cut."""
        if not self._may_touch_ports():
            return
        peer = int(self.out("cat /sys/class/net/eth0/iflink"))
        links = json.loads(run(beside_the_nodes("ip", "-json", "link")).out)
        name = next(str(link["ifname"]) for link in links if link["ifindex"] == peer)
        run(beside_the_nodes("ip", "link", "set", "dev", name, "group", str(self.plan.group)))

    # --- inside

    @staticmethod
    def _may_touch_ports() -> bool:
        return os.geteuid() == 0

    def _port_state(self, state: str) -> None:
        port = self.port()
        if port:
            run(beside_the_nodes("bridge", "link", "set", "dev", port, "state", state))

    def _pid(self) -> int:
        return int(self.engine.run("inspect", "--format", "{{.State.Pid}}", self.container).out)

    def _signal_all(self, number: signal.Signals) -> None:
        """Signal every process of the node, its first one included; three times, for what was just being born.

        Not the engine's own freezer: that one waits for ever on a process inside a FUSE call, and the node can then not
        even be killed.
        """
        space = Path(f"/proc/{self._pid()}/ns/pid").readlink()
        for _ in range(3):
            for process in Path("/proc").iterdir():
                if process.name.isdigit():
                    try:
                        if (process / "ns" / "pid").readlink() == space:
                            os.kill(int(process.name), number)
                    except OSError:  # it has ended, or it is not ours to look at
                        continue
            time.sleep(0.01)
