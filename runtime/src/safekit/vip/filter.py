"""Loads the farm filter into the kernel and reads it back. The only place that runs `nft`.

One transaction per change; what is loaded already is not written again. The tables carry the digest of their rules as
the name of an empty chain, written in the same transaction, so that a new daemon knows what is in force, and a filter
that a stranger removed (`nft flush ruleset`) is seen at the next `apply`. Foreign tables are neither read nor written.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable

from safekit.vip import netlink, ruleset
from safekit.vip.ruleset import FarmRules
from safekit.vip.service import Flow, VipError

TIMEOUT_S = 20.0
_MARK = "digest_"
_HOOK = re.compile(r'hook ingress device "([^"]+)"')


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

        A change is tried at once: its transaction fails when the tables do not carry the digest that it starts from.
        """
        if self._loaded is not None and self._loaded.digest != rules.digest:
            change = ruleset.difference(self._loaded, rules, flows)
            if change and run_nft(["-f", "-"], change).returncode == 0:
                self._loaded = rules
                return True
        found = self.in_force(rules)
        if found == rules.digest:
            self._loaded = rules
            return False
        text = None
        if self._loaded is not None and found == self._loaded.digest:
            text = ruleset.difference(self._loaded, rules, flows)
        self._load(ruleset.replacement(rules, flows) if text is None else text)
        self._loaded = rules
        return True

    def adopt(self, rules: FarmRules) -> bool:
        """Go on from `rules` if they are what the kernel has; False if they are not."""
        if self.in_force(rules) != rules.digest:
            return False
        self._loaded = rules
        return True

    def remove(self) -> bool:
        """Take our tables away; False if there were none."""
        self._loaded = None
        if not self._chains():
            return False
        self._load(ruleset.removal(self._module))
        return True

    def in_force(self, expected: FarmRules) -> str | None:
        """The digest that the kernel's tables carry; None if a table or a hook that `expected` needs is not there."""
        chains = self._chains()
        if set(ruleset.tables(expected)) - set(chains):
            return None
        marks = [name for name in chains["netdev"] if name.startswith(_MARK)]
        hooks = {device for device in chains["netdev"].values() if device}
        whole = len(marks) == 1 and hooks == set(expected.interfaces)
        return marks[0].removeprefix(_MARK) if whole else None

    def counters(self) -> dict[str, int]:
        """Packets by what became of them: `local`, `taken`, `second_chance`, `refused`, `forwarded_NODE`, `left`.

        `taken`: forwarded here by a member. `left`: another's, who heard it too (`vmac_invisible`).
        Empty if the filter is not in force.
        """
        return netlink.counters(ruleset.table_name(self._module))

    def _chains(self) -> dict[str, dict[str, str]]:
        """Our tables by family: chain -> the device that it is hooked on ("" for none).

        `list chains` is the one listing for which nft does not read the elements of all sets first.
        """
        found: dict[str, dict[str, str]] = {}
        table: dict[str, str] = {}
        chain = ""
        for line in run_nft(["list", "chains"]).stdout.splitlines():
            words = line.split()
            if words[:1] == ["table"]:
                table = found.setdefault(words[1], {}) if words[2] == ruleset.table_name(self._module) else {}
            elif words[:1] == ["chain"]:
                chain = words[1]
                table[chain] = ""
            elif hook := _HOOK.search(line):
                table[chain] = hook[1]
        return found

    def _load(self, text: str) -> None:
        if not text:
            return
        answer = run_nft(["-f", "-"], text)
        if answer.returncode:
            first = next((line for line in answer.stderr.splitlines() if line.strip()), "no message")
            raise VipError(
                "vip.filter", f"nftables refused the filter of module {self._module}: {first}", module=self._module
            )
