"""The small modules that the tests install: their configuration and their scripts."""

from __future__ import annotations

NOTES = "/var/test"
"""On each node, outside of what is replicated: what the scripts noted, and what tests ask of them."""

LEDGER_PORT = 7000

_SCRIPT = """\
#!/bin/sh
# Notes each call; {name} hangs, or waits to be let go, when the test asks for it.
mkdir -p {notes}
printf '%s %s %s\\n' "$(date +%s.%N)" {name} "$*" >>{notes}/$SAFEMODULE.calls
[ ! -e {notes}/hang-{name} ] || sleep 600
while [ -e {notes}/hold-{name} ]; do sleep 0.1; done
{then}
exit 0
"""

START = """\
systemctl is-active --quiet ledger-$SAFEMODULE && exit 0
systemctl reset-failed ledger-$SAFEMODULE 2>/dev/null
exec systemd-run --quiet --collect --unit=ledger-$SAFEMODULE --property=Type=notify \\
    --property=NotifyAccess=all python3 "$SAFEUSERBIN/ledger" "$LEDGER_PORT" "$LEDGER"
"""

STOP = """\
[ "${1:-}" != force ] || systemctl kill --signal=KILL ledger-$SAFEMODULE 2>/dev/null
systemctl stop ledger-$SAFEMODULE 2>/dev/null
"""

LEDGER = '''\
"""Appends each number that a client sends to a file, has it on the disk, and only then answers ok.

A datagram to the same port is answered with the name of this node.
"""

import os
import socket
import socketserver
import sys
import threading


class Ledger(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            os.write(self.server.ledger, line)
            os.fsync(self.server.ledger)
            self.wfile.write(b"ok " + line)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def tell(door):
    while True:
        _, client = door.recvfrom(100)
        door.sendto(socket.gethostname().encode(), client)


with Server(("0.0.0.0", int(sys.argv[1])), Ledger) as server:
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door.bind(server.server_address)
    threading.Thread(target=tell, args=(door,), daemon=True).start()
    server.ledger = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
        notice.connect(os.environ["NOTIFY_SOCKET"])
        notice.send(b"READY=1")
    server.serve_forever()
'''

_WHO = '''\
"""Answers each connection with the name of this node, and again whatever comes."""

import os
import socket
import socketserver
import sys


class Who(socketserver.BaseRequestHandler):
    def handle(self):
        name = socket.gethostname().encode()
        self.request.sendall(name)
        while self.request.recv(100):
            self.request.sendall(name)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


with Server(("0.0.0.0", int(sys.argv[1])), Who) as server:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
        notice.connect(os.environ["NOTIFY_SOCKET"])
        notice.send(b"READY=1")
    server.serve_forever()
'''


def script(name: str, then: str = "") -> str:
    """A script that notes its call, then does `then`."""
    return _SCRIPT.format(name=name, notes=NOTES, then=then)


def mirror_vip(address: str) -> str:
    """The `<vip>` of a mirror."""
    return (
        "<vip><interface_list><interface><real_interface>"
        f'<virtual_addr addr="{address}" where="one_side_alias"/>'
        "</real_interface></interface></interface_list></vip>"
    )


def mirror_config(
    address: str,
    folder: str,
    *,
    boot: str = "auto",
    port: int = LEDGER_PORT,
    attributes: str = "",
    heartbeats: str = '<heartbeat name="pair"/>',
    parts: str = "",
) -> str:
    """A mirror with one replicated directory and one address; `attributes` and `parts` of its service are added."""
    return f"""\
<safe><service mode="mirror" boot="{boot}" {attributes}>
  <heart pulse="200ms" timeout="3s">{heartbeats}</heart>
  <rfs async="second"><replicated dir="{folder}" mode="read_only"/></rfs>
  {mirror_vip(address)}
  <user nicestoptimeout="20s" forcestoptimeout="10s">
    <var name="LEDGER" value="{folder}/ledger"/><var name="LEDGER_PORT" value="{port}"/>
  </user>
  {parts}
</service></safe>
"""


def mirror_module(address: str, folder: str, *, boot: str = "auto") -> dict[str, str]:
    """A mirror whose application is a ledger: what it acknowledged must never be missing."""
    noted = ("prestart", "start_both", "stop_both", "start_second", "stop_second", "start_sec", "stop_sec", "poststop")
    return {
        "conf/userconfig.xml": mirror_config(address, folder, boot=boot),
        "bin/ledger": LEDGER,
        "bin/start_prim": script("start_prim", START),
        "bin/stop_prim": script("stop_prim", STOP),
        **{f"bin/{name}": script(name) for name in noted},
    }


def farm_config(address: str, *, filter_: str = "on_addr", port: int = 80, inside: str = "") -> str:
    """A farm with one address, one port and one group."""
    return f"""\
<safe><service mode="farm" boot="auto">
  <farm><lan name="default"/></farm>
  <vip>
    <interface_list><interface><virtual_interface type="vmac_directed">
      <virtual_addr addr="{address}" where="alias" connections="on"/>
    </virtual_interface></interface></interface_list>
    <loadbalancing_list><group name="web">
      {inside}
      <rule virtual_addr="*" port="{port}" proto="tcp" filter="{filter_}"/>
    </group></loadbalancing_list>
  </vip>
  <user nicestoptimeout="20s" forcestoptimeout="10s"/>
</service></safe>
"""


def farm_module(address: str, *, port: int = 80) -> dict[str, str]:
    """A farm whose application says on which node it runs."""
    start = (
        "systemctl is-active --quiet who-$SAFEMODULE && exit 0\n"
        "exec systemd-run --quiet --collect --unit=who-$SAFEMODULE --property=Type=notify --property=NotifyAccess=all "
        f'python3 "$SAFEUSERBIN/who" {port}'
    )
    return {
        "conf/userconfig.xml": farm_config(address, port=port),
        "bin/who": _WHO,
        "bin/start_both": script("start_both", start),
        "bin/stop_both": script("stop_both", "systemctl stop who-$SAFEMODULE 2>/dev/null"),
    }


def light_module(*, boot: str, attributes: str = "") -> dict[str, str]:
    """A light module: an application on one node, without a network."""
    return {
        "conf/userconfig.xml": f'<safe><service mode="light" boot="{boot}" {attributes}><user/></service></safe>\n',
        "bin/start_both": script("start_both"),
        "bin/stop_both": script("stop_both"),
    }


def cluster_config(addresses: dict[str, str], more: str = "") -> str:
    """cluster.xml: everybody on `default`, n1 and n2 on `pair` too; `more` lans after them."""
    nodes = {name: f'<node name="{name}" addr="{address}"/>' for name, address in addresses.items()}
    return (
        "<cluster><lans>\n"
        f'  <lan name="default">{"".join(nodes.values())}</lan>\n'
        f'  <lan name="pair">{nodes["n1"]}{nodes["n2"]}</lan>\n'
        f"{more}</lans></cluster>\n"
    )
