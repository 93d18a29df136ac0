"""The image of a node: `lab/Containerfile` on a plain Debian 12. Its tag is the hash of what it is made from."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.nodes.engine import ROOT, CommandFailed, Engine, Result

LAB = ROOT / "lab"
NODE = "localhost/safekit-node"
BASE = "localhost/safekit-base"


def _hash(*files: Path) -> str:
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]


def node_image() -> str:
    """The name of the image that this source tree asks for."""
    return f"{NODE}:{_hash(LAB / 'base', LAB / 'Containerfile')}"


def ensure_image(engine: Engine) -> str:
    """Build the image unless it is there. Its name."""
    image = node_image()
    if _exists(engine, image):
        return image
    build = ["build", "--network=host", "--tag", image, "--file", str(LAB / "Containerfile")]
    if engine.is_podman:
        build += ["--isolation=chroot"]
    if shutil.which("mmdebstrap"):
        base = f"{BASE}:{_hash(LAB / 'base')}"
        if not _exists(engine, base):
            _import_base(engine, base)
        build += ["--build-arg", f"BASE={base}"]
    _beside_the_machines_network(engine, *build, str(LAB), timeout=1800)
    return image


def remove_images(engine: Engine) -> None:
    """Remove every image that this file ever built."""
    listed = engine.run("images", "--format", "{{.Repository}}:{{.Tag}}").out.split()
    ours = [name for name in listed if name.startswith((f"{NODE}:", f"{BASE}:"))]
    if ours:
        engine.run("rmi", "--force", *ours, timeout=120)


def _exists(engine: Engine, image: str) -> bool:
    return engine.run("image", "inspect", image, check=False).ok


def _import_base(engine: Engine, base: str) -> None:
    with subprocess.Popen([str(LAB / "base")], stdout=subprocess.PIPE) as tar:
        _beside_the_machines_network(engine, "import", "-", base, stdin=tar.stdout, timeout=900)
    if tar.returncode:
        engine.run("rmi", "--force", base, check=False)
        raise CommandFailed(Result("lab/base", tar.returncode, "", "the Debian base could not be made"))


def _beside_the_machines_network(
    engine: Engine, *args: str, stdin: object = subprocess.DEVNULL, timeout: float
) -> None:
    """Run the engine with a way out, its output going where ours goes: for builds."""
    command = [str(LAB / "enter"), "--net=host", engine.name, *args]
    code = subprocess.run(command, stdin=stdin, timeout=timeout).returncode  # type: ignore[call-overload]
    if code:
        raise CommandFailed(Result(" ".join(command), code, "", "see above"))
