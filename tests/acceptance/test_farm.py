"""F1 to F14: a farm behind one address, its shares, its filters, and the loss of its nodes."""

from __future__ import annotations

import json
from collections import Counter

from tests.acceptance.cases import case, explains
from tests.acceptance.shared import GROUP, PORT, Shared
from tests.nodes import Node, wait_for
from tests.system.clients import refused
from tests.system.farm import NAME
from tests.system.modules import NOTES, script
from tests.system.product import mark, messages, safekit, shown, wait_state


def hosts(*powers: int) -> str:
    """The weights of n1, n2 and n3."""
    return "<cluster>" + "".join(f'<host name="n{n}" power="{p}"/>' for n, p in enumerate(powers, 1)) + "</cluster>"


@case("F1")
def test_f1_all_serve_and_share_alike(shared: Shared) -> None:
    n1, n2, n3 = shared.nodes
    everybody = f"farm membership: n1, n2, n3 (group {GROUP}_0)"
    shared.stop(*shared.nodes)
    shared.forget_calls()
    marks = {node: mark(node, NAME) for node in shared.nodes}
    shared.start(n1, n2)
    shared.wait_shares(50, 50, 0)
    for node in (n1, n2):
        wait_for("the load is said", lambda node=node: _load(node, marks[node], "farm load: 128/256"), timeout=30)  # type: ignore[misc]
        assert shared.calls(node).count("start_both") == 1
    shared.start(n3)
    shared.wait_shares(33.3, 33.3, 33.3)
    for node in shared.nodes:
        wait_for("all are members", lambda node=node: _load(node, marks[node], everybody), timeout=30)  # type: ignore[misc]


def _load(node: Node, after: int, words: str) -> bool:
    return any(message.startswith(words) for message in messages(node, NAME, after))


@case("F2")
def test_f2_who_stops_leaves_everything_to_the_others(shared: Shared) -> None:
    n1, n2, n3 = shared.nodes
    shared.stop(n3)
    shared.wait_shares(50, 50, 0)
    shared.forget_calls()
    shared.stop(n2)
    assert shared.calls(n2).count("stop_both") == 1
    shared.wait_shares(100, 0, 0)
    assert shown(n1, NAME) == "UP Ready" and shared.calls(n1) == []
    explains(n2, NAME, "STOP NotReady", "stop called by")
    shared.start(n2)
    shared.wait_shares(50, 50, 0)
    shared.start(n3)


@case("F3")
def test_f3_restart_runs_the_scripts_and_keeps_the_share(shared: Shared) -> None:
    node = shared.nodes[0]
    shared.forget_calls()
    seen = mark(node, NAME)
    safekit(node, f"restart -m {NAME}")
    wait_for("start_both ran", lambda: "start_both" in shared.calls(node), timeout=60)
    wait_state(node, NAME, "UP")
    states = [" ".join(m.split()[2:4]) for m in messages(node, NAME, seen) if m.startswith("Local state ")]
    assert states == ["UP Transient", "UP Ready"]
    assert shared.calls(node) == ["stop_both", "start_both"]


@case("F4")
def test_f4_the_address_is_everywhere_and_maps_to_one_node(bare_shared: Shared) -> None:
    """F4a, and then F4b."""
    shared = bare_shared.become()
    client = shared.lab.client
    for node in shared.nodes:
        assert node.succeeds(f"ip -o addr show | grep -q ' {shared.address}/'")
    client.run(f"ip neigh flush to {shared.address}")
    pinged = client.out(["ping", "-c", "2", "-W", "5", shared.address])
    assert "DUP!" not in pinged
    known = json.loads(client.out(["ip", "-json", "neigh", "show", "to", shared.address]))
    assert known[0]["lladdr"] in {node.mac for node in shared.nodes}
    invisible = shared.become(replaced=("vmac_directed", "vmac_invisible"))
    client.run(f"ip neigh flush to {shared.address}; ping -c 1 -W 5 {shared.address}")
    known = json.loads(client.out(["ip", "-json", "neigh", "show", "to", shared.address]))
    expected = "5a:fe:" + ":".join(f"{int(part):02x}" for part in invisible.address.split("."))
    assert known[0]["lladdr"] == expected
    answers = shared.answers(90)
    assert set(answers) == {"n1", "n2", "n3"}, answers
    n1, n2, n3 = shared.nodes
    shared.stop(n3)
    shared.wait_shares(50, 50, 0)
    assert set(shared.answers(60)) == {"n1", "n2"}
    hears = f"bridge fdb show | grep -q {expected}"
    assert not n3.succeeds(hears) and n1.succeeds(hears)
    n2.run(["systemctl", "restart", "safekitd"])
    wait_state(n2, NAME, "UP")
    shared.wait_shares(50, 50, 0)
    assert set(shared.answers(60)) == {"n1", "n2"}
    shared.start(n3)
    shared.wait_shares(33.3, 33.3, 33.3)
    assert set(shared.answers(90)) == {"n1", "n2", "n3"}


@case("F5", ours="4,096 buckets; the page of the console is asked for as the answer of an application on its port")
def test_f5_connections_are_shared_by_the_port_of_the_client(shared: Shared) -> None:
    n1, n2, n3 = shared.nodes
    shared.stop(n3)
    shared.wait_shares(50, 50, 0)
    answers = shared.answers(400)
    assert set(answers) == {"n1", "n2"}
    assert min(answers.values()) >= 130, answers
    shared.stop(n2)
    shared.wait_shares(100, 0, 0)
    assert set(shared.answers(50)) == {"n1"}
    assert _load(n1, 0, "farm load: 256/256")
    shared.start(n2)
    shared.start(n3)


@case("F6")
def test_f6_each_side_of_a_cut_takes_all_and_gives_it_back(shared: Shared) -> None:
    n1, n2, n3 = shared.nodes
    shared.stop(n3)
    shared.wait_shares(50, 50, 0)
    marks = {node: mark(node, NAME) for node in (n1, n2)}
    shared.lab.cut("n1", "n2")
    shared.wait_shares(100, 100, 0)
    for node in (n1, n2):
        assert _load(node, marks[node], "farm load: 256/256")
    shared.lab.heal()
    shared.wait_shares(50, 50, 0)
    assert set(shared.answers(60)) == {"n1", "n2"}
    shared.start(n3)


@case("F7", ours="every node hears each ping, which its counters tell; one answers")
def test_f7_every_node_hears_what_goes_to_an_invisible_address(bare_shared: Shared) -> None:
    shared = bare_shared.become(replaced=("vmac_directed", "vmac_invisible"))
    before = {node: (_packets(node, "local"), _packets(node, "left")) for node in shared.nodes}
    pinged = shared.lab.client.out(["ping", "-c", "20", "-i", "0.2", "-W", "5", shared.address])
    assert "20 received" in pinged and "DUP!" not in pinged, pinged
    answered = {node: _packets(node, "local") - local for node, (local, _) in before.items()}
    left = {node: _packets(node, "left") - others for node, (_, others) in before.items()}
    assert sorted(answered.values()) == [0, 0, 20], answered
    assert all(answered[node] + left[node] == 20 for node in shared.nodes), (answered, left)


def _packets(node: Node, counter: str) -> int:
    """How many the filter of the module counted since it was loaded."""
    listed = json.loads(node.out(f"nft -j list counter netdev safekit_{NAME} {counter}"))
    return int(next(one["counter"]["packets"] for one in listed["nftables"] if "counter" in one))


@case("F8")
def test_f8_shutdown_of_a_machine_stops_its_application_first(shared: Shared) -> None:
    n1, n2, n3 = shared.nodes
    shared.forget_calls()
    seen = mark(n2, NAME)
    n2.power_off()
    shared_by_two = {"n1", "n3"}
    wait_for("the others serve", lambda: set(shared.answers(40)) == shared_by_two, timeout=40)
    assert shown(n1, NAME) == shown(n3, NAME) == "UP Ready"
    n2.power_on()
    wait_state(n2, NAME, "UP", timeout=60)
    shared.wait_shares(33.3, 33.3, 33.3)
    said = messages(n2, NAME, seen)
    wanted = ("Action stop called by shutdown", "Script stop_both", "Local state STOP NotReady", "Local state UP Ready")
    places = [next(i for i, message in enumerate(said) if message.startswith(words)) for words in wanted]
    assert places == sorted(places), said


@case("F9")
def test_f9_power_cut_of_a_node(shared: Shared) -> None:
    n1, n2, n3 = shared.nodes
    n2.power_cut()
    wait_for("the others take its share", lambda: set(shared.answers(40)) == {"n1", "n3"}, timeout=40)
    assert shown(n1, NAME) == shown(n3, NAME) == "UP Ready"
    n2.power_on()
    wait_state(n2, NAME, "UP", timeout=60)
    shared.wait_shares(33.3, 33.3, 33.3)


@case("F10")
def test_f10_weights_decide_the_shares(bare_shared: Shared) -> None:
    bare_shared.become(inside=hosts(3, 1, 1)).wait_shares(60, 20, 20)
    running = bare_shared.visitors.start()
    bare_shared.change(hosts(1, 1, 0))
    bare_shared.wait_shares(50, 50, 0)
    assert "n3" not in bare_shared.answers(40)
    rounds = bare_shared.visitors.stop(running)
    assert len(rounds) > 2 and refused(rounds) == [], "nobody noticed"
    shared = bare_shared.become(inside=hosts(1, 64, 4096))
    shared.wait_shares(0, 0, 100)
    n3 = shared.nodes[2]
    assert set(shared.answers(40)) == {"n3"}
    shared.stop(n3)
    shared.wait_shares(0, 100, 0)
    assert set(shared.answers(40)) == {"n2"}


@case("F11")
def test_f11_a_client_stays_with_its_node(bare_shared: Shared) -> None:
    shared = bare_shared.become("on_addr")
    answers = shared.answers(60)
    assert len(answers) == 1, answers
    before = shared.ask_each()
    assert set(before.values()) == {"n1", "n2", "n3"}
    assert shared.ask_each() == before


_ECHO = """\
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind((sys.argv[1], int(sys.argv[2])))
while True:
    data, client = one.recvfrom(100)
    one.sendto(socket.gethostname().encode(), client)
"""
_DATAGRAMS = """\
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT: each datagram has an identification
    one.connect((sys.argv[1], int(sys.argv[2])))
    one.settimeout(5)
    for _ in range(int(sys.argv[3])):
        one.send(b"who")
        print(one.recv(100).decode())
"""


@case("F12")
def test_f12_datagrams_of_one_client_are_spread(bare_shared: Shared) -> None:
    rule = f'<rule virtual_addr="*" port="{PORT}" proto="udp" filter="on_ipid"/>'
    shared = bare_shared.become(replaced=("</group>", f"{rule}</group>"), feature='filter="on_ipid"')
    address, unit = shared.address, "echo-of-f12"
    try:
        for node in shared.nodes:
            node.run(
                ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "python3", "-c", _ECHO, address, str(PORT)]
            )
        listens = f"ss -Hlun src {address}:{PORT} | grep -q ."
        for node in shared.nodes:
            wait_for(f"{node.name} listens", lambda node=node: node.succeeds(listens), timeout=30)  # type: ignore[misc]
        said = shared.lab.client.out(["python3", "-c", _DATAGRAMS, address, str(PORT), "300"], timeout=120)
        answers = Counter(said.split())
        assert sum(answers.values()) == 300 and set(answers) == {"n1", "n2", "n3"}, answers
        assert min(answers.values()) >= 60, answers
    finally:
        for node in shared.nodes:
            node.run(["systemctl", "stop", unit], check=False)


_SLOW = f"{NOTES}/hold-open"
_HELD = f"{NOTES}/hold-start_both"
_CONTROLLING = {
    "bin/start_both": script(
        "start_both",
        "systemctl is-active --quiet who-$SAFEMODULE || systemd-run --quiet --collect --unit=who-$SAFEMODULE "
        f'--property=Type=notify --property=NotifyAccess=all python3 "$SAFEUSERBIN/who" {PORT}\n'
        f'while [ -e {_SLOW} ]; do sleep 0.1; done\n"$SAFE/safekit" farm open',
    ),
    "bin/stop_both": script(
        "stop_both", '"$SAFE/safekit" farm close 2>/dev/null\nsystemctl stop who-$SAFEMODULE 2>/dev/null'
    ),
}


@case("F13", ours="`safekit farm open` and `safekit farm close` in place of `saferpc_send vipd SETGROUPS`")
def test_f13_scripts_open_and_close_the_share(bare_shared: Shared) -> None:
    shared = bare_shared.become(replaced=("<vip>", '<vip scriptcontrol="on">'), scripts=_CONTROLLING)
    n1, _, n3 = shared.nodes
    shared.wait_shares(33.3, 33.3, 33.3)
    shared.stop(n3)
    shared.wait_shares(50, 50, 0)
    n3.run(["touch", _SLOW])
    try:
        safekit(n3, f"start -m {NAME}")
        wait_for("the application runs", lambda: n3.succeeds(f"systemctl is-active who-{NAME}"), timeout=60)
        assert n3.succeeds(f"ip -o addr show | grep -q ' {shared.address}/'")
        assert shown(n3, NAME) == "UP Transient" and shared.share(n3) == 0
        assert set(shared.answers(60)) == {"n1", "n2"}
    finally:
        n3.run(["rm", "-f", _SLOW])
    wait_state(n3, NAME, "UP")
    shared.wait_shares(33.3, 33.3, 33.3)
    assert set(shared.answers(90)) == {"n1", "n2", "n3"}
    safekit(n1, f"farm close -m {NAME}")
    shared.wait_shares(0, 50, 50)
    n1.run(["systemctl", "restart", "safekitd"])
    wait_state(n1, NAME, "UP")
    shared.wait_shares(0, 50, 50)
    assert set(shared.answers(60)) == {"n2", "n3"}
    safekit(n1, f"farm open -m {NAME}")
    shared.wait_shares(33.3, 33.3, 33.3)
    assert set(shared.answers(90)) == {"n1", "n2", "n3"}


@case("F14")
def test_f14_a_probe_tells_who_serves(shared: Shared) -> None:
    n1, n2, _ = shared.nodes

    def asked(node: Node, module: str = NAME) -> str:
        url = f"http://{node.address}:9010/var/modules/{module}/ready.txt"
        return shared.lab.client.out(["curl", "-s", "-o", "/dev/null", "-m", "10", "-w", "%{http_code}", url])

    assert [asked(node) for node in shared.nodes] == ["200"] * 3
    shared.stop(n1)
    assert (asked(n1), asked(n2), asked(n2, "none")) == ("404", "200", "404")
    n1.run(["touch", _HELD])
    try:
        safekit(n1, f"start -m {NAME}")
        wait_state(n1, NAME, "UP", substate="Transient")
        assert asked(n1) == "404"
    finally:
        n1.run(["rm", "-f", _HELD])
    wait_state(n1, NAME, "UP")
    assert asked(n1) == "200"
