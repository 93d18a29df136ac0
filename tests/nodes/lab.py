"""The lab: the segment with its nodes. Boots them, lends them, cuts them from each other, removes them."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.nodes.disk import STATE, Disk, disks_possible, template_disk
from tests.nodes.engine import ROOT, CommandFailed, Engine, beside_the_nodes, run
from tests.nodes.image import ensure_image, node_image, remove_images
from tests.nodes.node import Node
from tests.nodes.plan import CLUSTER, LabPlan, lab_plan, plan_here

KEY = STATE / "id_ed25519"
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_BEFORE = STATE / "max_user_instances"
LABEL = "safekit.lab"

# The rights of a real machine over its own network and mounts. Not --privileged: that would hand the node the disks of
# this machine.
RIGHTS = (
    "--cap-add=NET_ADMIN", "--cap-add=NET_RAW", "--cap-add=SYS_ADMIN", "--cap-add=SYS_BOOT", "--cap-add=SYS_NICE",
    "--cap-add=SYS_PTRACE", "--cap-add=IPC_LOCK", "--cap-add=AUDIT_WRITE", "--cap-add=MKNOD", "--device=/dev/fuse",
    "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined", "--security-opt=label=disable",
)  # fmt: skip
PODMAN = ("--systemd=always", "--security-opt=unmask=ALL")
DOCKER = (
    "--security-opt=systempaths=unconfined", "--cgroupns=private", "--tmpfs=/run", "--tmpfs=/run/lock",
    "--tmpfs=/tmp:exec", "--env=container=docker",
)  # fmt: skip
PODMAN_INIT = ("/sbin/init",)
DOCKER_INIT = ("/bin/sh", "-c", "mount -o remount,rw /sys/fs/cgroup && exec /sbin/init")

Say = Callable[[str], None]


def _silent(_line: str) -> None:
    return


class Lab:
    """The nodes of one segment: n1, n2, n3, and `client`, which belongs to no cluster."""

    def __init__(self, plan: LabPlan, engine: Engine, *, say: Say = _silent) -> None:
        self.plan = plan
        self.engine = engine
        self._say = say
        with_disks = disks_possible()
        self._nodes = {p.name: Node(p, engine, Disk(p.container) if with_disks else None) for p in plan.nodes}

    @classmethod
    def here(cls, *, say: Say = _silent) -> Lab:
        """The lab that the environment asks for (`SAFEKIT_LAB_NUMBER`, `CONTAINER_ENGINE`)."""
        return cls(plan_here(), Engine.here(), say=say)

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """n1, n2, n3."""
        return tuple(self._nodes[name] for name in CLUSTER)

    @property
    def client(self) -> Node:
        """The machine outside of the cluster, on the same segment."""
        return self._nodes["client"]

    @property
    def everyone(self) -> tuple[Node, ...]:
        """The nodes and the client."""
        return tuple(self._nodes.values())

    # --- life

    def ensure(self) -> None:
        """Have every node booted and nobody cut off: the nodes that are there, unless their image is an older one."""
        if self._usable():
            self.heal()
            for node in self.everyone:
                node.thaw()
                node.plug_cable()
            return
        self.create()

    def create(self) -> None:
        """Boot new nodes, in place of any that are there."""
        image = ensure_image(self.engine)
        with self._locked():
            self._clear()
            self._make_key()
            _make_room_for_inotify()
            template = template_disk(self.engine, image) if self.nodes[0].disk else None
            self._make_network()
            self._each(lambda node: self._boot(node, image, template))
        self._say(f"{', '.join(node.name for node in self.everyone)} are booted")

    def destroy(self) -> None:
        """Remove the nodes, their disks and their segment."""
        with self._locked():
            self._clear()

    @classmethod
    def destroy_everything(cls, *, say: Say = _silent) -> None:
        """Remove every lab of this machine, the images and the lab's own namespaces."""
        engine = Engine.here()
        try:
            for number in range(10):
                if number == 0 or (STATE / f"lab-{number}").exists():
                    cls(lab_plan(number), engine, say=say).destroy()
            remove_images(engine)
        except CommandFailed as trouble:  # an engine that is broken must not keep the rest from being removed
            say(f"{trouble}")
        run([str(ROOT / "lab" / "enter"), "--down"], check=False)
        if INOTIFY_BEFORE.exists():
            INOTIFY.write_text(INOTIFY_BEFORE.read_text())
        shutil.rmtree(STATE, ignore_errors=True)

    # --- faults between nodes

    def cut(self, one: str, other: str | None = None, *, one_way: bool = False, loss: int = 100) -> None:
        """`one` and `other` (None: everybody) no longer hear each other; the carrier stays, as when a switch fails.

        one_way: only what `one` sends is lost. loss: per cent of the frames. Cuts add up until `heal`, and outlast a
        power cut.
        """
        here = self[one].plan.group
        share = "" if loss >= 100 else f"numgen random mod 100 < {loss} "
        others = [self[other]] if other else [node for node in self.everyone if node.name != one]
        rules = []
        for node in others:
            there = node.plan.group
            rules.append(f"add rule bridge {self._fault_table} forward iifgroup {here} oifgroup {there} {share}drop")
            if not one_way:
                rules.append(
                    f"add rule bridge {self._fault_table} forward iifgroup {there} oifgroup {here} {share}drop"
                )
        chain = "{ type filter hook forward priority -300; policy accept; }"
        head = [f"add table bridge {self._fault_table}", f"add chain bridge {self._fault_table} forward {chain}"]
        self._nft("\n".join(head + rules))

    def heal(self) -> None:
        """Every cut between nodes ends. Pulled cables and frozen nodes are healed at the node."""
        self._nft(f"add table bridge {self._fault_table}\ndelete table bridge {self._fault_table}")

    # --- what is left to read

    def collect(self, folder: Path) -> None:
        """Save the journals and the product's logs of every node that is on, to look for the cause of a failure."""
        folder.mkdir(parents=True, exist_ok=True)
        for node in self.everyone:
            if not node.is_on():
                continue
            (folder / f"{node.name}.journal").write_text(node.journal(lines=20_000))
            pack = (
                "tar -C / -cz --ignore-failed-read --exclude=*.key $(cd / && ls -d var/safekit run/safekit 2>/dev/null)"
            )
            logs = node.run(f"{pack} 2>/dev/null | base64 -w0", check=False)
            (folder / f"{node.name}.tar.gz").write_bytes(base64.b64decode(logs.out))

    # --- inside

    @property
    def _fault_table(self) -> str:
        return f"safekit_fault_{self.plan.number}"

    def _nft(self, rules: str) -> None:
        run(beside_the_nodes("nft", "-f", "-"), input=rules.encode())

    def _each(self, action: Callable[[Node], None]) -> None:
        with ThreadPoolExecutor(len(self.everyone)) as pool:
            list(pool.map(action, self.everyone))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time makes or removes nodes on this machine."""
        STATE.mkdir(parents=True, exist_ok=True)
        with (STATE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _usable(self) -> bool:
        names = [node.container for node in self.everyone]
        found = self.engine.run("inspect", *names, check=False)
        if not found.ok:
            return False
        image = node_image()
        # After a reboot of this machine the engine may still take its nodes for running.
        return all(
            c["State"]["Running"]
            and Path(f"/proc/{c['State']['Pid']}").exists()
            and c["Config"]["Labels"].get(LABEL) == image
            for c in json.loads(found.out)
        )

    def _clear(self) -> None:
        at_once = ["--time=0"] if self.engine.is_podman else []
        containers = [node.container for node in self.everyone]
        for name in containers:  # each on its own: docker stops at the first unknown name
            if self.engine.run("container", "inspect", name, check=False).ok:
                self.engine.run("rm", "--force", "--volumes", *at_once, name, timeout=60)
        for node in self.everyone:
            if node.disk:
                node.disk.remove()
            else:
                self.engine.run("volume", "rm", "--force", f"{node.container}-data", check=False)
        self.engine.run("network", "rm", self.plan.network, check=False)
        if run(beside_the_nodes("nft", "list", "table", "bridge", self._fault_table), check=False).ok:
            self.heal()
        (STATE / f"lab-{self.plan.number}").unlink(missing_ok=True)

    def _make_key(self) -> None:
        (STATE / f"lab-{self.plan.number}").touch()
        if not KEY.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "safekit-lab", "-f", str(KEY)])

    def _make_network(self) -> None:
        own = ["--disable-dns"] if self.engine.is_podman else []
        subnets = ["--subnet", self.plan.subnet, "--ipv6", "--subnet", self.plan.subnet6]
        self.engine.run("network", "create", "--internal", *own, *subnets, self.plan.network)

    def _boot(self, node: Node, image: str, template: Path | None) -> None:
        if node.disk and template:
            node.disk.create(template)
            volumes = node.disk.volumes()
        else:
            volumes = [f"--volume={node.container}-data:/data"]
        own = (*PODMAN, f"--mac-address={node.mac}") if self.engine.is_podman else DOCKER
        init = PODMAN_INIT if self.engine.is_podman else DOCKER_INIT
        everyone = [f"--add-host={other.name}:{other.address}" for other in self.everyone]
        self.engine.run(
            "run", "--detach", "--name", node.container, "--hostname", node.name, "--label", f"{LABEL}={image}",
            "--network", self.plan.network, "--ip", node.address, "--ip6", node.address6,
            *RIGHTS, *own, *everyone, *volumes, image, *init,
            timeout=120,
        )  # fmt: skip
        node.mark_port()
        node.wait_booted()
        key = KEY.with_suffix(".pub").read_bytes()
        node.run("umask 077 && mkdir -p /root/.ssh && cat >/root/.ssh/authorized_keys", input=key)


def _make_room_for_inotify() -> None:
    """The usual 128 inotify instances are for the whole machine; without one, the systemd of a node hangs while it boots."""
    present = INOTIFY.read_text()
    if int(present) < 1024 and os.geteuid() == 0:
        INOTIFY_BEFORE.write_text(present)
        INOTIFY.write_text("1024\n")
