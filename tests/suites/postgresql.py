"""PostgreSQL's own regression tests, run against a server whose data lie in a directory of ours."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.suites.sources import binary, source

USER = "postgres"
SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{sockets}'
port = 54329
shared_buffers = 16MB
max_connections = 60
checkpoint_timeout = 30s
log_min_messages = error
"""


@dataclass(frozen=True)
class Outcome:
    """How many tests ran, and those that failed, by name."""

    count: int
    failed: frozenset[str]
    output: str


def as_user(
    *command: str | Path, folder: Path, check: bool = True, seconds: float = 900
) -> subprocess.CompletedProcess[str]:
    """Runs a program as the database's user."""
    line = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--", *map(str, command)]
    return subprocess.run(
        line,
        cwd=folder,
        check=check,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder), "PGUSER": USER},
    )


class Server:
    """The newest server that this machine has. Its programs run as its user; `home` is a folder that everybody may enter."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = max(Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name))
        self.bin = self.root / "bin"
        self.sockets = home / "sockets"
        shutil.chown(home, USER, USER)

    @contextlib.contextmanager
    def serving(self, data: Path) -> Iterator[None]:
        """A new database in the directory `data`, which is made; the server is stopped in order afterwards."""
        shutil.rmtree(self.sockets, ignore_errors=True)
        for folder in (self.sockets, data):
            folder.mkdir()
            shutil.chown(folder, USER, USER)
        as_user(
            *(
                self.bin / "initdb",
                "-D",
                data,
                "-U",
                USER,
                "-A",
                "trust",
                "--no-locale",
                "-E",
                "UTF8",
                "--data-checksums",
            ),
            folder=self.home,
        )
        with open(data / "postgresql.conf", "a") as file:
            file.write(SETTINGS.format(sockets=self.sockets))
        as_user(self.bin / "pg_ctl", "-D", data, "-l", self.home / "log", "-w", "start", folder=self.home)
        try:
            yield
        finally:
            as_user(self.bin / "pg_ctl", "-D", data, "-m", "fast", "-w", "-t", "120", "stop", folder=self.home)

    def client(self, program: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A program that speaks to the server."""
        return as_user(self.bin / program, "-h", self.sockets, "-p", "54329", *words, folder=self.home, check=check)

    def verify(self, data: Path) -> None:
        """Every page of every file has the right checksum. Raises CalledProcessError."""
        as_user(self.bin / "pg_checksums", "--check", "-D", data, folder=self.home)


class RegressionTests(Server):
    """The server with its tests, prepared in `home`."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        package = f"postgresql-{self.root.name}"
        tree = source(package, ("*/src/test/regress",))
        self.tests = home / "regress"
        shutil.copytree(tree / "src" / "test" / "regress", self.tests)
        self.libraries = home / "libraries"
        self.libraries.mkdir()
        version = tree.parent.name.removeprefix(f"{package}-")
        headers = binary(f"postgresql-server-dev-{self.root.name}", version) / "usr/include/postgresql" / self.root.name
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-w", "-O1", f"-I{headers / 'server'}"]
            + ["-o", str(self.libraries / "regress.so"), str(self.tests / "regress.c")],
            check=True,
        )
        for name in ("autoinc.so", "refint.so"):
            shutil.copy(self.root / "lib" / name, self.libraries)
        subprocess.run(["chown", "-R", f"{USER}:{USER}", home], check=True)

    def run(self, data: Path) -> Outcome:
        """All tests, with the data in the directory `data`, which is made."""
        output = self.home / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        shutil.chown(output, USER, USER)
        with self.serving(data):
            ran = as_user(
                self.root / "lib/pgxs/src/test/regress/pg_regress",
                *(
                    f"--inputdir={self.tests}",
                    f"--outputdir={output}",
                    f"--bindir={self.bin}",
                    f"--dlpath={self.libraries}",
                ),
                *(f"--host={self.sockets}", "--port=54329", f"--user={USER}", "--max-connections=10"),
                f"--schedule={self.tests / 'parallel_schedule'}",
                folder=self.home,
                check=False,
            )
        results = re.findall(r"(?m)^(?:test)?\s+(\w+)\s+\.\.\. (ok|FAILED)", ran.stdout)
        differences = output / "regression.diffs"
        shown = ran.stdout[-3000:] + (differences.read_text(errors="replace")[:5000] if differences.exists() else "")
        return Outcome(len(results), frozenset(name for name, result in results if result != "ok"), shown)
