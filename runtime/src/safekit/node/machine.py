"""What the node does to the machine that it runs on."""

from __future__ import annotations

import asyncio

LIMIT_S = 30.0


async def restart_machine() -> str:
    """Begin an orderly restart: systemd stops every service, ours stops the modules first (spec §11.7).

    Returns why it cannot be begun, or an empty text.
    """
    try:
        command = await asyncio.create_subprocess_exec(
            "systemctl",
            "reboot",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        return f"systemctl: {error.strerror}"
    try:
        async with asyncio.timeout(LIMIT_S):
            _, said = await command.communicate()
    except TimeoutError:
        command.kill()
        return f"systemctl reboot did not answer for {LIMIT_S:g} s"
    if command.returncode == 0:
        return ""
    return said.decode(errors="replace").strip() or f"systemctl reboot ended with {command.returncode}"
