"""From `<rfs>` and `<replicated>` (spec §3.6) to the command line of the data plane: the one place that knows both.

Only what `safekit-rfs` must know stands here. What the daemon does by itself (`checktime`, `syncdelta`, `syncat`,
`verifyat`, `scripts`, `namespacepolicy`, `reidetail`, `tocheck`, `flow`) is in `safekit.module`.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from safekit.config import Rfs
from safekit.paths import Paths
from safekit.replication.process import ProcessSettings


def settings_of(module: str, rfs: Rfs, paths: Paths, boot_id: str, address: str) -> ProcessSettings:
    """How the data plane of a module is started on this node.

    `boot_id` tells this boot from every other one; `address` is this node's in the network of the replication.
    """
    return ProcessSettings(
        module=module,
        control=paths.module_run(module) / "rfs.sock",
        state_dir=paths.module_var(module) / "rfs",
        key_file=paths.cluster / "cluster.key",
        directories=tuple(Path(replicated.dir) for replicated in rfs.replicated),
        durability=rfs.async_,
        ack_timeout=rfs.locktimeout.total_seconds(),
        silence_timeout=rfs.sendtimeout.total_seconds(),
        binary=paths.safe / "venv" / "bin" / "safekit-rfs",
        options=(*_options(rfs, boot_id), *_wire(address)),
        excluded_paths=tuple(
            tuple(excluded.path for excluded in replicated.notreplicated if excluded.path)
            for replicated in rfs.replicated
        ),
        excluded_names=tuple(
            tuple(excluded.regexpath for excluded in replicated.notreplicated if excluded.regexpath)
            for replicated in rfs.replicated
        ),
    )


def _wire(address: str) -> tuple[str, ...]:
    """Encrypted in every case: the key of the cluster is there before any module, and the stream is no slower by it.

    The stream leaves from the address that the other node knows, whatever the routes say; a name is left to them.
    """
    try:
        return ("--encryption", "on", "--source", str(ip_address(address)))
    except ValueError:
        return ("--encryption", "on")


def _options(rfs: Rfs, boot_id: str) -> tuple[str, ...]:
    """What holds for every directory."""
    return (
        *("--zone-size", str(rfs.ruzone_blocksize)),
        *("--resync-threads", str(rfs.nbrei)),
        *("--resync-bandwidth", str(rfs.reiallowedbw or 0)),
        *("--resync-timeout", str(int(rfs.reitimeout.total_seconds()))),
        *("--namespace-policy", "0" if rfs.namespacepolicy == "0" else "4"),
        *("--boot-id", boot_id),
    )
