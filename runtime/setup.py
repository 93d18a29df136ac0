"""Builds the wheel: the Python package of `pyproject.toml`, and the native data plane as `safekit/bin/safekit-rfs`.

The Python code is the same everywhere; the data plane is not. The wheel is therefore tagged for the platform that it was
built on, and for any Python.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

NATIVE = Path(__file__).parent / "native"
BINARY = NATIVE / "build" / "safekit-rfs"


class BuildWithNative(build_py):
    """Runs `make` in `native/` and puts what it makes beside the package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        subprocess.run(["make", "--no-print-directory", "-C", str(NATIVE), "all"], check=True)
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


setup(distclass=NativeDistribution, cmdclass={"build_py": BuildWithNative, "bdist_wheel": PlatformWheel})
