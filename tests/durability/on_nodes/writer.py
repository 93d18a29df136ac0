"""An application that writes all the time and knows how long each write took.

usage: writer FILE STOP

Until the file STOP is there; prints JSON: writes, errors, longest_s, second_longest_s, p50_s, p99_s.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main(path: str, stop: str) -> None:
    """4 KiB at a time, overwriting a megabyte."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    block, took, errors, number = os.urandom(4096), [], 0, 0
    while not os.path.exists(stop):
        began = time.monotonic()
        try:
            os.pwrite(file, block, number % 256 * 4096)
        except OSError:
            errors += 1
        took.append(time.monotonic() - began)
        number += 1
        time.sleep(0.004)
    took.sort()
    report = {
        "writes": len(took),
        "longest_s": took[-1],
        "second_longest_s": took[-2],
        "p50_s": took[len(took) // 2],
        "p99_s": took[len(took) * 99 // 100],
        "errors": errors,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
