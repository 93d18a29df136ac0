"""A checker that the module brings along: resource `custom.<ident>` (spec §6.2).

The program runs as long as its class of checkers does, gets the module, the resource and its own argument, and sets the
resource itself with `safekit set`. One that ends is started again, and until it speaks its resource is not known.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from safekit.checkers.probing import Report
from safekit.config import CustomCheck

AGAIN_S = 10.0
END_S = 5.0


class CustomChecker:
    """Runs the program of one `<custom>`.

    folder: the active `bin/` of the module, where a relative `exec` lies. environment: of the program, as scripts have
    it. say: writes a critical line into the module's log.
    """

    def __init__(
        self,
        check: CustomCheck,
        module: str,
        folder: Path,
        environment: Mapping[str, str],
        report: Report,
        say: Callable[[str], None],
    ) -> None:
        self._check = check
        self._resource = f"custom.{check.ident}"
        program = folder / check.exec  # an absolute path stays what it is
        self._command = (str(program), module, self._resource, *shlex.split(check.arg))
        self._environment = dict(environment)
        self._report = report
        self._say = say

    async def run(self) -> None:
        """Until cancelled; the program and what it started ends with it, also when this daemon is killed."""
        while True:
            self._say_end(await self._once())
            self._report(self._resource, "unknown", "custom")
            await asyncio.sleep(AGAIN_S)

    async def _once(self) -> int | str:
        try:
            program = await asyncio.create_subprocess_exec(
                "/usr/bin/setpriv",
                "--pdeathsig",
                "TERM",
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            return error.strerror or str(error)
        try:
            return await program.wait()
        finally:
            await _end_session(program)

    def _say_end(self, code: int | str) -> None:
        how = f"it exited with {code}" if isinstance(code, int) else code
        self._say(f"Checker {self._check.exec} of {self._resource} does not run: {how}; again in {AGAIN_S:.0f} s")


async def _end_session(program: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await program.wait()
            return
