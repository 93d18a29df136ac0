"""A tree of more files than the data plane may have open: every file can be used, and the kernel is asked to forget some."""

from __future__ import annotations

import os
from pathlib import Path

from tests.native.pair import Pair, in_thread, opened
from tests.native.trees import assert_equal

LIMIT = 3000
FILES = 6000


async def test_a_tree_of_more_files_than_descriptors_is_used_like_any_other(tmp_path: Path, binary: Path) -> None:

    async with opened(Pair(tmp_path, limited(tmp_path, binary))) as pair:
        await pair.serve()
        await pair.mirror()
        kept = pair.a.data / "kept"

        def use() -> None:
            kept.write_text("open all the time")
            with kept.open() as file:
                for number in range(FILES):
                    folder = pair.a.data / f"d{number % 3}"
                    folder.mkdir(exist_ok=True)
                    (folder / f"f{number}").write_bytes(b"%d" % number)
                for number in range(0, FILES, 7):
                    assert (pair.a.data / f"d{number % 3}" / f"f{number}").read_bytes() == b"%d" % number
                assert os.readlink(f"/proc/self/fd/{file.fileno()}") == str(kept)
                assert sum(1 for _ in pair.a.data.rglob("f*")) == FILES

        await in_thread(use)
        assert (await pair.a.plane.status()).peer == "mirror"
        await pair.a.plane.handover()
        assert_equal(pair.a.data, pair.b.data)


def limited(folder: Path, binary: Path) -> Path:
    """The program, with fewer descriptors."""
    script = folder / "limited"
    script.write_text(f'#!/bin/sh\nulimit -n {LIMIT}\nexec "{binary}" "$@"\n')
    script.chmod(0o755)
    return script
