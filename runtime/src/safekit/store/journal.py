"""The system's log: every line of a module log goes there too, with the tag `safekit` (spec §11.1, `journalctl -t
safekit`).
"""

from __future__ import annotations

import syslog

_PRIORITIES = {
    "C": syslog.LOG_CRIT,
    "E": syslog.LOG_NOTICE,
    "U": syslog.LOG_NOTICE,
    "S": syslog.LOG_INFO,
    "I": syslog.LOG_INFO,
    "D": syslog.LOG_DEBUG,
}


def to_journal(level: str, line: str) -> None:
    """Send one line. May block as long as the system's logger does: call it outside the loop."""
    syslog.openlog("safekit", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(_PRIORITIES[level], line.replace("\0", "?"))
