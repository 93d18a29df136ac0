"""Where things are on a node (spec §7.4).

The only module that spells a path. Everything else receives a `Paths`; tests give one below a temporary folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The three roots of a node: programs and configuration, what lasts, what ends with the power."""

    safe: Path = Path("/opt/safekit")
    var: Path = Path("/var/safekit")
    run: Path = Path("/run/safekit")

    @property
    def api_socket(self) -> Path:
        """The local API of `safekitd`."""
        return self.run / "safekitd.sock"

    @property
    def web_socket(self) -> Path:
        """What of the API may be asked from afar, for the web service. A folder of its own: the account of that service
        sees nothing else of `run`.
        """
        return self.run.with_name(self.run.name + "-web") / "safekitd.sock"

    @property
    def web(self) -> Path:
        """Users, certificate and private key of the web service."""
        return self.var / "web"

    @property
    def web_certificate(self) -> tuple[Path, Path]:
        """Certificate and private key of the web service, in PEM."""
        return self.web / "server.crt", self.web / "server.key"

    @property
    def pulse_socket(self) -> Path:
        """Where `safekitd` speaks to `safekit-pulse`."""
        return self.run / "pulse.sock"

    @property
    def pulse_state(self) -> Path:
        """What `safekit-pulse` goes on with after a restart of its own."""
        return self.run / "pulse.json"

    @property
    def pulse_incarnations(self) -> tuple[Path, Path]:
        """How often `safekit-pulse` was started: until the next power-off, and for ever."""
        return self.run / "pulse.incarnation", self.var / "pulse.incarnation"

    @property
    def watchdog(self) -> Path:
        """Names the watchdog of this machine, where an administrator wants one used."""
        return self.var / "watchdog"

    @property
    def boot_id(self) -> Path:
        """What tells this boot of the node from every other one; gone at power-off."""
        return self.run / "boot-id"

    @property
    def cluster(self) -> Path:
        """`cluster.xml` and `cluster.key`."""
        return self.var / "cluster"

    @property
    def witness(self) -> Path:
        """What a witness keeps: the clusters that it serves and the registers of their modules."""
        return self.var / "witness"

    @property
    def witness_incarnations(self) -> tuple[Path, Path]:
        """How often this node has spoken as a witness: until the next power-off, and for ever."""
        return self.run / "witness.incarnation", self.var / "witness.incarnation"

    @property
    def claim_incarnations(self) -> tuple[Path, Path]:
        """How often this node has spoken to its witness: until the next power-off, and for ever."""
        return self.run / "claim.incarnation", self.var / "claim.incarnation"

    @property
    def command_log(self) -> Path:
        """The node's command log (SQLite)."""
        return self.var / "log.db"

    def module(self, name: str) -> Path:
        """The edited tree of a module: `conf/`, `bin/`, `web/`."""
        return self.safe / "modules" / name

    def active(self, name: str) -> Path:
        """The applied tree of a module (SAFEUSERBIN and SAFEUSERCONF are below it)."""
        return self.safe / "private" / "modules" / name

    def module_var(self, name: str) -> Path:
        """What a module keeps (SAFEUSERVAR): records, logs, resources."""
        return self.var / "modules" / name

    def module_run(self, name: str) -> Path:
        """What a module knows until the next power-off."""
        return self.run / "modules" / name
