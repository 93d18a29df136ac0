"""The mirror of the cases with every checker: what is tested, how a test is made to fail, and the programs for it."""

from __future__ import annotations

from tests.acceptance.pair import Pair
from tests.nodes import Node, wait_for
from tests.system.mirror import NAME
from tests.system.modules import LEDGER_PORT, NOTES, START, STOP, script
from tests.system.product import safekit

ASIDE_PORT, EXTERNAL_PORT = 7010, 7020
EXTERNAL = "external-service"
WATCHED = ("ledger", "aside", "external")

_LISTEN = '''\
"""Accepts connections, and closes them."""

import socket
import sys

with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as server:
    while True:
        server.accept()[0].close()
'''

_LOOK = f"""\
#!/bin/sh
# Down while the test says that what it looks at is ill.
while :; do
  if [ -e {NOTES}/ill-"$3" ]; then value=down; else value=up; fi
  [ "$value" = "$last" ] || safekit set -r "$2" -v "$value" -i look -m "$1"
  last=$value
  sleep 0.3
done
"""

_CALL = f"""\
#!/bin/sh
# Asks for a restart by itself, once each time that the test wants it.
safekit set -r "$2" -v up -i call -m "$1"
while :; do
  if rm {NOTES}/call 2>/dev/null; then safekit restart -i call -m "$1"; fi
  sleep 0.3
done
"""

_AIDS = """\
systemctl is-active --quiet aid-one || systemd-run --quiet --collect --unit=aid-one sleep 7200
systemctl is-active --quiet aid-two || systemd-run --quiet --collect --unit=aid-two sleep 7300
[ -e {notes}/broken ] && exit 0  # the ledger cannot be started
"""
_HEAL = f"rm -f {NOTES}/ill-again {NOTES}/ill-away {NOTES}/ill-ruled\n"
"""What a start mends, as a restart of an application does."""

PROGRAMS = {
    "bin/listen": _LISTEN,
    "bin/look": _LOOK,
    "bin/call": _CALL,
    "bin/prestart": script("prestart", _HEAL),
    "bin/start_prim": script("start_prim", _HEAL + _AIDS.format(notes=NOTES) + START),
    "bin/stop_prim": script("stop_prim", "systemctl stop aid-one aid-two 2>/dev/null\n" + STOP),
    "bin/start_both": script(
        "start_both",
        "systemctl is-active --quiet aside || systemd-run --quiet --collect --unit=aside "
        f'python3 "$SAFEUSERBIN/listen" {ASIDE_PORT}',
    ),
    "bin/stop_both": script("stop_both", "systemctl stop aside 2>/dev/null"),
}


def _tcp(ident: str, when: str, action: str, address: str, port: int) -> str:
    to = f'<to addr="{address}" port="{port}" interval="1s" timeout="1s"/>'
    return f'<tcp ident="{ident}" when="{when}" action="{action}">{to}</tcp>'


def _custom(ident: str, when: str, action: str, program: str = "look") -> str:
    return f'<custom ident="{ident}" when="{when}" exec="{program}" arg="{ident}" action="{action}"/>'


class Checked:
    """Module `m` with a checker of every kind; its rules act after two seconds."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.client, self.outside = pair.lab.client, pair.lab["n3"]

    def parts(self) -> str:
        """The checkers."""
        return "\n".join(
            (
                '<errd polltimer="1s">',
                '<proc name="aid-one.service" service="yes" class="prim" action="restart"/>',
                '<proc name="aid-two" nameregex="^sleep$" argregex=" 7300$" class="prim" action="stopstart"/>',
                "</errd>",
                "<check>",
                _tcp("ledger", "prim", "restart", "127.0.0.1", LEDGER_PORT),
                _tcp("aside", "both", "stopstart", "127.0.0.1", ASIDE_PORT),
                _tcp("external", "pre", "wait", self.outside.address, EXTERNAL_PORT),
                f'<ping ident="router"><to addr="{self.client.address}" interval="1s" timeout="1s"/></ping>',
                _custom("before", "pre", "wait"),
                _custom("again", "prim", "restart"),
                _custom("away", "prim", "stopstart"),
                _custom("ruled", "prim", "noaction"),
                _custom("own", "prim", "noaction", "call"),
                "</check>",
                '<failover period="1s" handle_time="2s"><![CDATA[',
                "r_ruled: if (custom.ruled == down) then restart();",
                "]]></failover>",
            )
        )

    def make_well(self) -> None:
        """Nothing is ill, everything runs, PRIM and SECOND Ready."""
        self.make_well_again()
        self.serve_outside()
        self.pair.become(parts=self.parts(), programs=PROGRAMS)
        primary, _ = self.pair.roles()
        names = ("tcp.ledger", "tcp.aside", "custom.again", "custom.own", "proc.aid-two", f"ip.{self.pair.address}")
        for name in names:
            wait_for(f"{name} is tested", lambda name=name: self.pair.value(primary, name) == "up", timeout=40)  # type: ignore[misc]
        self.pair.forget_calls()

    def make_well_again(self) -> None:
        """What a case broke is mended."""
        self.pair.mend()
        for node in self.pair.nodes:
            node.run(f"rm -f {NOTES}/ill-* {NOTES}/broken {NOTES}/call")

    def serve_outside(self) -> None:
        """The external service runs on n3."""
        self.outside.write(f"{NOTES}/listen", _LISTEN)
        self.outside.run(
            f"systemctl is-active --quiet {EXTERNAL} || systemd-run --quiet --collect --unit={EXTERNAL} "
            f"python3 {NOTES}/listen {EXTERNAL_PORT}"
        )

    def end_outside(self) -> None:
        """... and no more."""
        self.outside.run(["systemctl", "stop", EXTERNAL])

    def fall_ill(self, node: Node, ident: str) -> None:
        """What the custom checker `ident` looks at is ill on this node."""
        node.run(["touch", f"{NOTES}/ill-{ident}"])

    def get_well(self, node: Node, ident: str) -> None:
        """... and is well again."""
        node.run(["rm", "-f", f"{NOTES}/ill-{ident}"])

    def restart(self, node: Node, words: str = "") -> None:
        """`safekit restart`, and wait until the application was started again."""
        before = self.pair.names(node).count("start_prim")
        safekit(node, f"restart -m {NAME} {words}")
        self.pair.wait_called(node, "start_prim", before + 1)
