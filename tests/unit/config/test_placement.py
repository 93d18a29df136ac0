"""A module among others: its ports, the cluster, the modules beside it (spec §1.5, §10.3)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from safekit.config import (
    ConfigError,
    Ports,
    UserConfig,
    check_module,
    load_cluster,
    module_nodes,
    nodes_asked,
    ports,
    quorum_of,
)
from tests.unit.config.samples import CLUSTER, cluster, farm, farm_vip, light, load, mirror, mirror_vip, rfs

VIP = mirror_vip('<virtual_addr addr="192.0.2.20" where="one_side_alias"/>')


def _refusal(
    text: str,
    *,
    node: str = "n1",
    others: Mapping[str, str] | None = None,
    module_id: int = 1,
    ids: Mapping[str, int] | None = None,
) -> tuple[str, ...]:
    beside = {name: load(other) for name, other in (others or {}).items()}
    with pytest.raises(ConfigError) as refusal:
        check_module(load(text), cluster(), node, beside, module_id, ids)
    return tuple(message.removeprefix("userconfig.xml, line 1: ") for message in refusal.value.messages)


def _accepted(text: str, *, node: str = "n1", others: Mapping[str, UserConfig] | None = None) -> None:
    check_module(load(text), cluster(), node, others or {}, 1)


def test_ports_follow_from_the_id_of_the_module() -> None:
    assert ports(load(mirror(rfs("/a"))), 1) == Ports(heart=8888, rfs=5600, farm=None)
    assert ports(load(mirror(rfs("/a"))), 3) == Ports(heart=8890, rfs=5608, farm=None)
    assert ports(load(mirror()), 3) == Ports(heart=8890, rfs=None, farm=None)
    assert ports(load(farm()), 1) == Ports(heart=None, rfs=None, farm=4803)
    assert ports(load(farm()), 3) == Ports(heart=None, rfs=None, farm=4809)
    assert ports(load(light()), 3) == Ports(heart=None, rfs=None, farm=None)


def test_a_port_that_is_written_stands() -> None:
    assert ports(load(mirror(heart='<heart port="9999"><heartbeat name="pair"/></heart>')), 3).heart == 9999
    assert ports(load(farm(lan='<farm port="9998"><lan name="default"/></farm>')), 3).farm == 9998


@pytest.mark.parametrize(
    ("module_id", "message"),
    [
        (0, "userconfig.xml: 0 is not the id of a module; expected a whole number from 1 on"),
        (
            60000,
            "userconfig.xml, line 1: <heart>: the module id 60000 leads to the port 68887; expected a smaller id",
        ),
    ],
)
def test_an_id_without_ports_is_refused(module_id: int, message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        ports(load(mirror()), module_id)
    assert (refusal.value.code, refusal.value.message) == ("config.id", message)


def test_a_module_that_fits_is_accepted() -> None:
    web = load(farm(farm_vip()))
    _accepted(mirror(VIP + rfs("/srv/data")), others={"web": web, "batch": load(light())})
    _accepted(mirror(VIP), node="n2")
    _accepted(
        farm(
            farm_vip('<group name="g"><cluster><host name="n3"/></cluster><rule proto="tcp" filter="on_addr"/></group>')
        )
    )
    _accepted(light(), node="n3")
    check_module(
        load(mirror(rfs("/a"))), cluster(), "n1", {"web": web, "db": load(mirror(rfs("/b")))}, 1, {"web": 2, "db": 3}
    )


def test_a_farm_node_is_on_one_of_its_lans_at_least() -> None:
    _accepted(farm(lan='<farm><lan name="pair"/><lan name="other"/></farm>'), node="n3")
    assert _refusal(farm(lan='<farm><lan name="other"/></farm>')) == (
        '<lan name="other">: the node n1 is not on this lan; expected a lan of cluster.xml with the node n1',
    )


def test_a_module_runs_on_the_nodes_of_its_lans() -> None:
    assert module_nodes(load(mirror()), cluster()) == ("n1", "n2")
    assert module_nodes(load(farm()), cluster()) == ("n1", "n2", "n3")
    assert module_nodes(load(farm(lan='<farm><lan name="other"/></farm>')), cluster()) == ("n2", "n3")
    assert module_nodes(load(light()), cluster()) == ("n1", "n2", "n3")


def test_a_lan_that_is_missing_is_named_with_those_there_are() -> None:
    assert _refusal(mirror(heart='<heart><heartbeat name="repli"/></heart>')) == (
        '<heartbeat name="repli">: cluster.xml has no lan of this name; expected one of default, pair, other',
    )
    assert _refusal(farm(lan='<farm><lan name="repli"/></farm>')) == (
        '<lan name="repli">: cluster.xml has no lan of this name; expected one of default, pair, other',
    )
    assert _refusal(mirror(rfs("/a", flow='<flow name="repli"/>'))) == (
        '<flow name="repli">: cluster.xml has no lan of this name; expected one of default, pair, other',
    )


def test_a_node_outside_of_the_cluster_is_refused() -> None:
    assert _refusal(mirror(), node="n9") == (
        "userconfig.xml: this node, n9, is not in the cluster; expected one of n1, n2, n3",
    )


def test_a_node_outside_of_the_mirror_is_refused() -> None:
    assert _refusal(mirror(), node="n3") == (
        '<heartbeat name="pair">: the node n3 is not on this lan; expected a lan of cluster.xml with the node n3',
    )


def test_a_mirror_has_exactly_two_nodes() -> None:
    assert _refusal(mirror(heart='<heart><heartbeat name="default"/></heart>')) == (
        '<heartbeat name="default">: a mirror module has two nodes, the same on all its lans; this lan has n1, n2, n3; '
        "expected a lan of cluster.xml with exactly the two nodes of the module",
    )


def test_a_mirror_has_the_same_nodes_on_all_its_lans() -> None:
    messages = _refusal(mirror(heart='<heart><heartbeat name="pair"/><heartbeat name="other"/></heart>'), node="n2")
    assert len(messages) == 2
    assert "this lan has n2, n3" in messages[1]


def test_a_preferred_primary_is_a_node_of_the_module() -> None:
    _accepted(mirror(attributes='defaultprim="n2"'))
    _accepted(mirror(attributes='defaultprim="lastprim"'))
    assert _refusal(mirror(attributes='defaultprim="n3"')) == (
        '<service defaultprim="n3">: not a node of this module; expected one of alone, lastprim, n1, n2',
    )


def test_an_unknown_host_of_a_group_is_refused() -> None:
    group = '<group name="g"><cluster><host name="n1"/><host name="n7"/></cluster><rule proto="tcp" filter="on_addr"/></group>'
    assert _refusal(farm(farm_vip(group))) == (
        '<host name="n7">: not a node of this module; expected one of n1, n2, n3',
    )


def test_two_modules_do_not_share_a_virtual_address() -> None:
    text = farm(farm_vip(addresses='<virtual_addr addr="192.0.2.20" where="alias"/>'))
    assert _refusal(text, others={"db": mirror(VIP)}) == (
        '<virtual_addr addr="192.0.2.20">: this is a virtual address of the module db already; '
        "expected an address that nothing else uses",
    )


def test_a_virtual_address_is_not_that_of_a_node() -> None:
    text = mirror(mirror_vip('<virtual_addr addr="192.0.2.12" where="one_side_alias"/>'))
    assert _refusal(text) == (
        '<virtual_addr addr="192.0.2.12">: this is the address of the node n2 already; '
        "expected an address that nothing else uses",
    )


@pytest.mark.parametrize(
    ("own", "foreign", "which"),
    [
        ("/srv/data", "/srv/data", "this directory"),
        ("/srv/data/deep", "/srv/data", "/srv/data, which overlaps it,"),
        ("/srv", "/srv/data", "/srv/data, which overlaps it,"),
    ],
)
def test_two_modules_do_not_replicate_one_tree(own: str, foreign: str, which: str) -> None:
    assert _refusal(mirror(rfs(own)), others={"db": mirror(rfs(foreign))}) == (
        f'<replicated dir="{own}">: the module db replicates {which} already; '
        "expected a directory apart from those of the other modules",
    )


def test_neighbouring_directories_do_not_overlap() -> None:
    _accepted(mirror(rfs("/srv/data2")), others={"db": load(mirror(rfs("/srv/data")))})


def test_two_modules_do_not_share_a_port() -> None:
    heart = '<heart port="8889"><heartbeat name="pair"/></heart>'
    assert _refusal(mirror(heart=heart), others={"db": mirror()}, ids={"db": 2}) == (
        '<heart port="8889">: the UDP port 8889 is that of the module db already; expected a port that nothing else uses',
    )


def test_the_ports_of_others_are_compared_when_their_ids_are_known() -> None:
    heart = '<heart port="8889"><heartbeat name="pair"/></heart>'
    check_module(load(mirror(heart=heart)), cluster(), "n1", {"db": load(mirror())}, 1)


def test_a_module_stays_off_the_ports_of_the_cluster_and_of_the_console() -> None:
    assert _refusal(farm(lan='<farm port="4800"><lan name="default"/></farm>')) == (
        '<farm port="4800">: the UDP port 4800 is that of the membership of the cluster already; '
        "expected a port that nothing else uses",
    )


def test_two_modules_do_not_share_an_id() -> None:
    assert _refusal(farm(), others={"db": mirror()}, ids={"db": 1}) == (
        "userconfig.xml: the module db has the id 1 already; expected an id of its own",
    )


def test_an_id_that_leads_nowhere_is_told_with_the_rest() -> None:
    messages = _refusal(mirror(attributes='defaultprim="n3"'), module_id=0)
    assert len(messages) == 2
    assert any("0 is not the id of a module" in message for message in messages)


NEEDS = '<check><module name="db"><to addr="{}"/></module></check>'


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost", "192.0.2.12", "192.0.2.20"])
def test_a_needed_module_is_looked_for_here_on_a_node_or_behind_its_virtual_address(address: str) -> None:
    _accepted(light(NEEDS.format(address)), others={"db": load(mirror(VIP))})


@pytest.mark.parametrize("address", ["192.0.2.20", "198.51.100.1", "db.example.net"])
def test_a_module_of_another_cluster_cannot_be_needed(address: str) -> None:
    assert _refusal(light(NEEDS.format(address))) == (
        f'<to addr="{address}">: neither a node of this cluster nor a virtual address of the module db on this node; '
        "expected 127.0.0.1, the address of a node of this cluster, or a virtual address of the module",
    )


def test_whose_word_counts_for_a_needed_module_follows_from_the_address() -> None:
    def asked(address: str) -> tuple[str, ...]:
        check = load(light(NEEDS.format(address))).service.check
        assert check is not None
        return nodes_asked(check.module[0], cluster(), "n1")

    assert asked("127.0.0.1") == ("n1",)
    assert asked("192.0.2.12") == ("n2",)
    assert asked("192.0.2.20") == cluster().node_names


def test_what_asks_nobody_over_the_network_says_so() -> None:
    warnings = load(
        light('<check><module name="db"><to port="9453" secure="on" timeout="1s"/></module></check>')
    ).warnings
    assert [(warning.attribute, warning.value) for warning in warnings] == [
        ("port", "9453"),
        ("timeout", "1s"),
        ("secure", "on"),
    ]


def witnessed(address: str = "192.0.2.99") -> str:
    """The cluster of the samples with a witness."""
    return CLUSTER.replace("</cluster>", f'<witness name="w" addr="{address}"/></cluster>')


def test_a_witness_decides_as_soon_as_there_is_one() -> None:
    assert quorum_of(load(mirror()), cluster()) == "none"
    assert quorum_of(load(mirror()), load_cluster(witnessed())) == "witness"
    assert quorum_of(load(mirror(attributes='quorum="none"')), load_cluster(witnessed())) == "none"
    check_module(load(mirror(attributes='quorum="witness"')), load_cluster(witnessed()), "n1", {}, 1)


def test_a_mirror_that_a_witness_decides_needs_one() -> None:
    assert _refusal(mirror(attributes='quorum="witness"')) == (
        '<service quorum="witness">: the cluster has no witness; expected a <witness> in cluster.xml, or quorum="none"',
    )


@pytest.mark.parametrize("address", ["192.0.2.12", "198.51.100.11"])
def test_a_witness_is_no_node_of_the_mirror(address: str) -> None:
    with pytest.raises(ConfigError, match=r"the witness w is the node n[12] of this module: it would be lost together"):
        check_module(load(mirror()), load_cluster(witnessed(address)), "n1", {}, 1)
    check_module(load(mirror(attributes='quorum="none"')), load_cluster(witnessed(address)), "n1", {}, 1)


def test_another_node_of_the_cluster_may_be_the_witness_of_a_mirror() -> None:
    check_module(load(mirror()), load_cluster(witnessed("192.0.2.13")), "n1", {}, 1)


SPLITBRAIN = '<check><splitbrain arg="192.0.2.1"/></check>'


@pytest.mark.parametrize(
    ("text", "decides"),
    [
        (mirror(), "none"),
        (mirror(SPLITBRAIN), "ping"),
        (mirror(SPLITBRAIN, attributes='quorum="ping"'), "ping"),
        (mirror(SPLITBRAIN, attributes='quorum="none"'), "none"),
    ],
)
def test_pinged_machines_decide_where_nobody_else_does(text: str, decides: str) -> None:
    assert quorum_of(load(text), cluster()) == decides


def test_machines_that_are_not_pinged_and_pings_without_a_machine_are_told() -> None:
    (warning,) = load(mirror(SPLITBRAIN, attributes='quorum="none"')).warnings
    assert (warning.element, warning.reason) == (
        "splitbrain",
        'the machines are not pinged, because quorum="none" decides',
    )
    with pytest.raises(ConfigError, match="there is no machine to ping"):
        load(mirror(attributes='quorum="ping"'))


def test_a_fence_belongs_to_a_mirror_that_replicates() -> None:
    assert load(mirror(rfs("/a"), attributes='quorum="fence"')).service.quorum == "fence"
    with pytest.raises(ConfigError, match="only a mirror that replicates is fenced; expected an <rfs>"):
        load(mirror(attributes='quorum="fence"'))
