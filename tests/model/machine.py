"""The requests that sequences are made of, and how Hypothesis puts them together."""

from __future__ import annotations

import os
import stat
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.model import application as a
from tests.model.ground import Ground
from tests.model.trial import Trial

NAMES = (
    b"a",
    b"b",
    b"d",
    b"d/a",
    b"d/b",
    b"e",
    b"e/f",
    b"e/f/c",
    b"link",
    b"d/link",
    b"with space",
    b".",
    b"\xff\xc3\x28\n%=\x01\\",
    b"n" * 255,
    b"d/" + "ü".encode() * 127,
    b"n" * 256,
    b"a/below a file",
    b"link/a",
    b"d/..",
)
THERE = (b"a", b"b", b"d", b"d/a", b"e", b"e/f", b"e/f/c", b"link", b"fifo")
"""What every sequence begins with; see trial.py."""
MODES = (0o644, 0o600, 0o755, 0o666, 0o777, 0o444, 0o4755, 0o2755, 0o2644, 0o6777, 0o1777, 0o2777, 0o000)
SIZES = (10, 0, 1, 100, 4095, 4096, 4097, 12288, 65536, 131_077, 1_048_583)
OFFSETS = (0, 1, 100, 4095, 4096, 5000, 8192, 65536, 131_071, 1 << 20, 3_000_000, (5 << 40) + 7)
TIMES = (a.UTIME_NOW, a.UTIME_OMIT, 0, 1, 1_234_567_890_123_456_789, -1, (1 << 33) * 10**9 + 5)
ACL_SMALL = a.acl((1, 6, 0xFFFFFFFF), (4, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
ACL_NAMED = a.acl(
    (1, 7, 0xFFFFFFFF), (2, 6, 1000), (4, 5, 0xFFFFFFFF), (8, 7, 1000), (16, 6, 0xFFFFFFFF), (32, 1, 0xFFFFFFFF)
)
KEYS = (b"user.a", b"user.b", b"trusted.a", b"system.posix_acl_access", b"system.posix_acl_default", b"unknown.a")
VALUES = (b"", b"value", b"x" * 300, b"x" * 3000, ACL_SMALL, ACL_NAMED, b"\x02\x00\x00\x00")

path = st.sampled_from(THERE) | st.sampled_from(NAMES)
user = st.sampled_from((0, 0, 0, 1, 2))
umask = st.sampled_from((0o022, 0o000, 0o077))
slot = st.integers(0, 3)
open_slot = st.runner().flatmap(lambda self: st.sampled_from(sorted(self.trial.plain.files)))
mode = st.sampled_from(MODES)
seed = st.integers(0, 9)
size = st.sampled_from(SIZES)
offset = st.sampled_from(OFFSETS)
small_offset = st.sampled_from(OFFSETS[:-1])
owner = st.sampled_from((-1, 0, 1000, 1001))
when = st.sampled_from(TIMES)
key = st.sampled_from(KEYS)
value = st.sampled_from(VALUES)
follow = st.booleans()
access = st.sampled_from((os.O_RDWR, os.O_WRONLY, os.O_RDONLY))
xattr_flags = st.sampled_from((0, os.XATTR_CREATE, os.XATTR_REPLACE))
more_flags = st.sampled_from(
    (
        0,
        os.O_CREAT,
        os.O_CREAT | os.O_EXCL,
        os.O_CREAT | os.O_TRUNC,
        os.O_TRUNC,
        os.O_APPEND,
        os.O_APPEND | os.O_CREAT,
        os.O_SYNC,
        os.O_DSYNC | os.O_CREAT,
        os.O_DIRECTORY,
        os.O_NOFOLLOW,
        os.O_NOFOLLOW | os.O_CREAT,
        os.O_NOATIME,
        os.O_PATH,
    )
)
open_flags = st.builds(int.__or__, access, more_flags)
locks = st.sampled_from((2, 1, 8))
range_locks = st.sampled_from((1, 0, 2))
allocations = st.sampled_from(
    (
        0,
        a.KEEP_SIZE,
        a.KEEP_SIZE | a.PUNCH_HOLE,
        a.ZERO_RANGE,
        a.ZERO_RANGE | a.KEEP_SIZE,
        a.PUNCH_HOLE,
    )
)
kinds = st.sampled_from((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFREG))
device = st.sampled_from((os.makedev(1, 3), os.makedev(240, 70_000), 0))
special = st.builds(int.__or__, kinds, mode)

OPERATIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    # open files
    "open": {"slot": slot, "path": path, "flags": open_flags, "mode": mode, "user": user, "umask": umask},
    "open_temporary": {"slot": slot, "folder": path, "flags": access, "mode": mode, "user": user, "umask": umask},
    "name_open": {"slot": open_slot, "path": path, "user": user},
    "duplicate": {"slot": open_slot, "other": slot},
    "close": {"slot": open_slot},
    "write": {"slot": open_slot, "seed": seed, "size": size, "user": user},
    "pwrite": {"slot": open_slot, "seed": seed, "size": size, "offset": offset, "user": user},
    "pwrite_synced": {"slot": open_slot, "seed": seed, "size": size, "offset": offset},
    "read": {"slot": open_slot, "size": size},
    "pread": {"slot": open_slot, "size": size, "offset": offset},
    "seek": {"slot": open_slot, "offset": offset, "whence": st.integers(0, 4)},
    "store": {"slot": open_slot, "seed": seed, "size": size, "offset": small_offset, "sync": st.booleans()},
    "copy_range": {
        "slot": open_slot,
        "source": open_slot,
        "source_offset": small_offset,
        "size": size,
        "offset": offset,
    },
    "allocate": {"slot": open_slot, "mode": allocations, "offset": offset, "size": size, "user": user},
    "truncate_open": {"slot": open_slot, "size": offset, "user": user},
    "sync": {"slot": open_slot, "data_only": st.booleans()},
    "stat_open": {"slot": open_slot},
    "chmod_open": {"slot": open_slot, "mode": mode, "user": user},
    "chown_open": {"slot": open_slot, "uid": owner, "gid": owner, "user": user},
    "set_times_open": {"slot": open_slot, "atime": when, "mtime": when, "user": user},
    "set_xattr_open": {"slot": open_slot, "key": key, "value": value, "flags": xattr_flags, "user": user},
    "lock_file": {"slot": open_slot, "kind": locks},
    "lock_range": {"slot": open_slot, "kind": range_locks, "offset": small_offset, "size": size},
    "who_locks": {"slot": open_slot, "kind": st.integers(0, 1), "offset": small_offset, "size": size},
    # names
    "write_file": {
        "path": path,
        "flags": st.sampled_from(
            (os.O_CREAT, os.O_CREAT | os.O_TRUNC, os.O_CREAT | os.O_EXCL, os.O_APPEND, os.O_TRUNC)
        ),
        "mode": mode,
        "seed": seed,
        "size": size,
        "user": user,
        "umask": umask,
    },
    "read_file": {"path": path, "user": user},
    "truncate": {"path": path, "size": offset, "user": user},
    "make_folder": {"path": path, "mode": mode, "user": user, "umask": umask},
    "remove_folder": {"path": path, "user": user},
    "make_special": {"path": path, "mode": special, "device": device, "user": user, "umask": umask},
    "make_symlink": {
        "path": path,
        "text": st.sampled_from((b"a", b"d", b"nowhere", b"../link", b"link", b"\xff \n", b"t" * 4095)),
        "user": user,
    },
    "read_symlink": {"path": path},
    "link": {"path": path, "new": path, "follow": follow, "user": user},
    "unlink": {"path": path, "user": user},
    "rename": {"path": path, "new": path, "flags": st.sampled_from((0, 0, 1, 2, 3, 8)), "user": user},
    "list_folder": {"path": path, "user": user},
    "sync_folder": {"path": path},
    "stat": {"path": path, "follow": follow},
    "access": {"path": path, "mode": st.integers(0, 7), "user": user},
    # attributes
    "chmod": {"path": path, "mode": mode, "user": user},
    "chown": {"path": path, "uid": owner, "gid": owner, "follow": follow, "user": user},
    "set_times": {"path": path, "atime": when, "mtime": when, "follow": follow, "user": user},
    "set_xattr": {"path": path, "key": key, "value": value, "flags": xattr_flags, "follow": follow, "user": user},
    "get_xattr": {"path": path, "key": key, "follow": follow},
    "list_xattr": {"path": path, "follow": follow},
    "remove_xattr": {"path": path, "key": key, "follow": follow, "user": user},
}
OFTEN = ("open", "write_file", "write_file", "make_folder", "rename", "pwrite", "write", "link", "store", "unlink")


class Files(RuleBasedStateMachine):
    """Requests only."""

    ground: ClassVar[Ground]

    def __init__(self) -> None:
        super().__init__()
        self.trial = Trial(self.ground)
        self.failed = False

    def do(self, request: str, arguments: dict[str, Any]) -> None:
        try:
            self.trial.do(request, **arguments)
        except BaseException:
            self.failed = True
            raise

    def fault(self, fault: str, **arguments: Any) -> None:
        try:
            self.trial.fault(fault, **arguments)
        except BaseException:
            self.failed = True
            raise

    def finish(self) -> None:
        """What a sequence needs before its end."""

    def teardown(self) -> None:
        if self.failed:
            return
        self.finish()
        self.trial.finish()


def _asking(request: str) -> Any:
    def ask(self: Files, **arguments: Any) -> None:
        if arguments.get("uid") == arguments.get("gid") == -1:
            arguments["user"] = 0  # docs/reference/filesystem.md says what is different here for others
        self.do(request, arguments)

    ask.__name__ = request
    make_rule: Any = rule
    ruled = make_rule(**OPERATIONS[request])(ask)
    needs_open = any(strategy is open_slot for strategy in OPERATIONS[request].values())
    has_open: Any = precondition(lambda self: bool(self.trial.plain.files))
    return has_open(ruled) if needs_open else ruled


for _index, _request in enumerate((*OPERATIONS, *OFTEN)):
    setattr(Files, f"{_request}_{_index}", _asking(_request))


# What happens to the pair, after how many requests. A secondary that was lost comes back some requests later, and the requests
# go on while it is resynchronised.
gap = st.integers(0, 12)
Fault = tuple[int, str, dict[str, Any]]
lost: st.SearchStrategy[tuple[Fault, ...]] = st.builds(
    lambda before, killed, between, full, waits: (
        (before, "lose_secondary", {"killed": killed}),
        (between, "rejoin", {"full": full, "waits": waits}),
    ),
    gap,
    st.booleans(),
    gap,
    st.booleans(),
    st.booleans(),
)
turned: st.SearchStrategy[tuple[Fault, ...]] = st.builds(
    lambda before, fault: ((before, fault, {}),), gap, st.sampled_from(("swap", "take_over"))
)
plans = st.lists(lost | turned, min_size=1, max_size=3)


class FilesAndFaults(Files):
    """Requests while the pair loses its secondary, swaps its roles, or loses its primary or the process behind the mount."""

    @initialize(plan=plans)
    def plan(self, plan: list[tuple[Fault, ...]]) -> None:
        self.faults = [fault for group in plan for fault in group]
        self.done = 0

    def do(self, request: str, arguments: dict[str, Any]) -> None:
        while self.faults and self.done >= self.faults[0][0]:
            self.next_fault()
        self.done += 1
        super().do(request, arguments)

    def next_fault(self) -> None:
        _, fault, arguments = self.faults.pop(0)
        self.done = 0
        self.fault(fault, **arguments)

    def finish(self) -> None:
        while self.faults:
            self.next_fault()
