"""How the command ends: the table that scripts rely on, printed in docs/reference/cli.md."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Codes below 10 belong to `state -lq`, so that no failure can be taken for a state."""

    DONE = 0
    REFUSED = 10
    USAGE = 11
    NOT_RUNNING = 12
    UNKNOWN = 13
    CONFIGURATION = 14
    TIMEOUT = 15
    DEFECT = 16
    DIFFERENT = 17
    UNREACHABLE = 18
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.DONE: "Done, also when there was nothing to do.",
    ExitCode.REFUSED: "The node says no; the message says why. Nothing was changed.",
    ExitCode.USAGE: "The command line is wrong, or a file that it names cannot be read or written.",
    ExitCode.NOT_RUNNING: "safekitd does not run on this node, or does not let you in.",
    ExitCode.UNKNOWN: "No such module or resource on this node.",
    ExitCode.CONFIGURATION: "The configuration is wrong; the message names file, line, element and attribute.",
    ExitCode.TIMEOUT: "The state that was waited for was not reached in time.",
    ExitCode.DEFECT: "A defect of safekitd: see `journalctl -u safekitd`.",
    ExitCode.DIFFERENT: "The two copies of the replicated directories differ (`rfsverify`, `rfsdiff`).",
    ExitCode.UNREACHABLE: "A server that `-H` names could not be asked, or did not prove to be of this cluster.",
    ExitCode.INTERRUPTED: "Interrupted with Ctrl-C.",
}

STATE_CODES: dict[str, int] = {"STOP": 0, "WAIT": 1, "ALONE": 2, "UP": 2, "PRIM": 3, "SECOND": 4}
"""What `state -m AM -lq` exits with (spec §8)."""


class Failure(Exception):
    """The command cannot do what it was asked; `lines` is what the person reads."""

    def __init__(self, code: ExitCode, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.code = code
        self.lines = lines


class Finished(Exception):
    """The command is done and ends with a code that is an answer (`state -lq`)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def of_error(code: str) -> ExitCode:
    """The exit code for an error code of the API."""
    if code.startswith(("config.", "package.")):
        return ExitCode.CONFIGURATION
    if code in ("module.unknown", "resource.unknown"):
        return ExitCode.UNKNOWN
    if code == "wait.timeout":
        return ExitCode.TIMEOUT
    if code in ("node.stopping", "node.not_running"):
        return ExitCode.NOT_RUNNING
    return ExitCode.DEFECT if code == "internal" else ExitCode.REFUSED
