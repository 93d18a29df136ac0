"""Builds the wheel: the Python package of `pyproject.toml`, and the native data plane as `safekit/bin/safekit-rfs`.

The Python code is the same everywhere; the data plane is not. The wheel is therefore tagged for the platform that it
was built on, and for any Python. SAFEKIT_BUILD, if set, becomes the local part of the version (0.1.0+SAFEKIT_BUILD), so
that an installer sees that two builds differ.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
BINARY = HERE / "native" / "build" / "safekit-rfs"


def version() -> str:
    """The version that the package states of itself, and the build."""
    stated = re.search(r'^__version__ = "([^"]+)"', (HERE / "src/safekit/__init__.py").read_text(), re.MULTILINE)
    if stated is None:
        raise SystemExit("runtime/src/safekit/__init__.py states no __version__")
    build = os.environ.get("SAFEKIT_BUILD")
    return stated[1] + (f"+{build}" if build else "")


class BuildWithNative(build_py):
    """Runs `make` in `native/` and puts what it makes into the package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        subprocess.run(["make", "--no-print-directory", "-C", str(HERE / "native")], check=True)
        target = Path(self.build_lib) / "safekit" / "bin" / BINARY.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(BINARY, target)
        target.chmod(0o755)


class PlatformWheel(bdist_wheel):
    """Any Python, this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


class NativeDistribution(Distribution):
    """Holds a program of this platform, though no extension module."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    version=version(),
    distclass=NativeDistribution,
    cmdclass={"build_py": BuildWithNative, "bdist_wheel": PlatformWheel},
)
