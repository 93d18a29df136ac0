"""Loads the farm filter into the kernel and reads it back. The only place that runs `nft`.

One transaction per change; what is loaded already is not written again. The tables carry the digest of their rules as
the name of an empty chain, written in the same transaction, so that a new daemon knows what is in force, and a filter
that a stranger removed (`nft flush ruleset`) is seen at the next `apply`. Foreign tables are neither read nor written.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable

from safekit.vip import ruleset
from safekit.vip.ruleset import FarmRules
from safekit.vip.service import Flow, VipError

TIMEOUT_S = 20.0


def run_nft(arguments: Iterable[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `nft`; the one door, behind which a library could stand. VipError if it is missing or does not end."""
    program = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise VipError(
            "vip.filter", "the program nft is not installed (package nftables): a farm needs it", program="nft"
        )
    try:
        return subprocess.run(
            [program, *arguments],
            input=text,
            text=True,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            env={"LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise VipError("vip.filter", f"nft did not end within {TIMEOUT_S:.0f} s", program=program) from error


class FarmFilter:
    """The filter of one module: `apply`, `remove`, `in_force`, `counters`."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._loaded: FarmRules | None = None

    def apply(self, rules: FarmRules, flows: Iterable[Flow] = ()) -> bool:
        """Put `rules` in force in one transaction; False if they were already. `flows`: connections to keep here
        (second chance).
        """
        found = self.in_force(rules)
        if found == ruleset.digest(rules):
            self._loaded = rules
            return False
        text = None
        if self._loaded is not None and found == ruleset.digest(self._loaded):
            text = ruleset.difference(self._loaded, rules, flows)
        self._load(ruleset.replacement(rules, flows) if text is None else text)
        self._loaded = rules
        return True

    def adopt(self, rules: FarmRules) -> bool:
        """Go on from `rules` if they are what the kernel has; False if they are not."""
        if self.in_force(rules) != ruleset.digest(rules):
            return False
        self._loaded = rules
        return True

    def remove(self) -> bool:
        """Take our tables away; False if there were none."""
        self._loaded = None
        if not self._tables():
            return False
        self._load(ruleset.removal(self._module))
        return True

    def in_force(self, expected: FarmRules) -> str | None:
        """The digest that the kernel's tables carry; None if one of the tables or hooks that `expected` needs is not
        there.
        """
        if set(ruleset.tables(expected)) - set(self._tables()):
            return None
        answer = run_nft(["-t", "list", "table", "netdev", ruleset.table_name(self._module)])
        marks = re.findall(r"^\s*chain digest_([0-9a-f]{16}) \{", answer.stdout, re.MULTILINE)
        hooks = re.findall(r'type filter hook ingress device "([^"]+)"', answer.stdout)
        return marks[0] if len(marks) == 1 and set(hooks) == set(expected.interfaces) else None

    def counters(self) -> dict[str, int]:
        """Packets by what became of them: `local`, `taken`, `second_chance`, `refused`, `forwarded_NODE`. Empty if not
        in force.
        """
        answer = run_nft(["-j", "list", "counters", "table", "netdev", ruleset.table_name(self._module)])
        if answer.returncode:
            return {}
        entries = json.loads(answer.stdout)["nftables"]
        return {entry["counter"]["name"]: entry["counter"]["packets"] for entry in entries if "counter" in entry}

    def _tables(self) -> list[str]:
        """The families in which there is a table of ours."""
        answer = run_nft(["list", "tables"])
        name = ruleset.table_name(self._module)
        return [family for word, family, table in map(str.split, answer.stdout.splitlines()) if table == name]

    def _load(self, text: str) -> None:
        if not text:
            return
        answer = run_nft(["-f", "-"], text)
        if answer.returncode:
            first = next((line for line in answer.stderr.splitlines() if line.strip()), "no message")
            raise VipError(
                "vip.filter", f"nftables refused the filter of module {self._module}: {first}", module=self._module
            )
