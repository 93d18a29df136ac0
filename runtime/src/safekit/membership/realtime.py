"""Asks the kernel for what a heartbeat deserves: memory that is never paged out, and the processor when it is due.

Everything here is best effort: a container may refuse, and the pulse then beats all the same.
"""

from __future__ import annotations

import ctypes
import os
import resource

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_PRIORITY = 10
_LONGEST_RUN_US = 2_000_000
"""Of processor time without a pause: a loop gone wild is ended by the kernel and restarted by systemd, instead of
owning a processor.
"""


def claim() -> list[str]:
    """Claim what is granted; returns what was: "memory", "realtime" or "nice"."""
    granted: list[str] = []
    # ONFAULT: lock what is used, not every page of every library that is mapped.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0:
        granted.append("memory")
    try:
        resource.setrlimit(resource.RLIMIT_RTTIME, (_LONGEST_RUN_US, _LONGEST_RUN_US))
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
        granted.append("realtime")
    except (OSError, ValueError):
        try:
            os.setpriority(os.PRIO_PROCESS, 0, -20)
            granted.append("nice")
        except OSError:
            pass
    return granted
