"""The TCP connections of a virtual address: which are held here, and resetting them before the address goes
(`tcpreset`, spec §3.5).

A client of an address that vanishes would wait for its own time-out; a reset makes it reconnect, now to the next owner.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from safekit.vip import netlink
from safekit.vip.service import Flow, IPAddress

_GONE = (errno.ENOENT, errno.ENOTCONN)
_CANNOT = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def flows(addresses: Iterable[IPAddress], *, established: bool = False) -> list[Flow]:
    """Every connection of this node on these addresses, from the server's side; `established`: neither half open nor
    ending.
    """
    return [connection.flow for address in addresses for connection in netlink.connections(address, established)]


def reset_connections(addresses: Iterable[IPAddress]) -> tuple[int, str]:
    """Reset every connection on these addresses. Returns how many, and why not all (empty if all).

    The kernel can do it if it is built with INET_DIAG_DESTROY, as the distributions' are; otherwise nothing is reset
    and the note says so.
    """
    count = 0
    for address in addresses:
        for connection in netlink.connections(address):
            try:
                netlink.destroy(connection)
            except OSError as error:
                if error.errno in _GONE:
                    continue
                if error.errno in _CANNOT:
                    return (
                        count,
                        "this kernel cannot reset connections (no INET_DIAG_DESTROY): clients wait for time-outs",
                    )
                return count, f"resetting the connections of {address} failed: {error.strerror}"
            count += 1
    return count, ""
