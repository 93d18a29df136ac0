"""`userconfig.xml` (spec §3): what the elements and attributes mean, and what follows when they are absent."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address

import pytest

from safekit.config import Host, Rule, load_userconfig, safeconf, unsupported
from tests.unit.config.samples import (
    FARM_LAN,
    HEART,
    farm,
    farm_vip,
    light,
    load,
    mirror,
    mirror_vip,
    rfs,
    safe,
)

MIRROR = """<?xml version="1.0"?>
<!DOCTYPE safe>
<safe>
  <macro name="SERVICES" value="mydb, myapp"/>
  <service mode="mirror" boot="on" defaultprim="alone" failover="on" maxloop="3" loop_interval="24h">
    <heart><heartbeat name="default"/><heartbeat name="repli" ident="flow"/></heart>
    <vip><interface_list><interface check="on" arpreroute="on"><real_interface>
      <virtual_addr addr="192.0.2.20" where="one_side_alias" check="on"/>
    </real_interface></interface></interface_list></vip>
    <rfs async="second"><replicated dir="/srv/data" mode="read_only">
      <tocheck path="marker"/><notreplicated regexpath=".*\\.tmp$"/>
    </replicated></rfs>
    <user><var name="SERVICES" value="%SERVICES%"/></user>
    <errd><proc name="myapp" service="yes" action="restart" class="prim"/></errd>
    <check>
      <tcp ident="app" when="prim" action="restart"><to addr="127.0.0.1" port="8080"/></tcp>
      <splitbrain ident="witness" exec="ping" arg="192.0.2.1"/>
    </check>
  </service>
</safe>
"""

FARM = """<safe>
  <service mode="farm" boot="auto">
    <farm><lan name="default"/></farm>
    <vip><interface_list><interface check="on" arpreroute="on"><virtual_interface type="vmac_directed">
      <virtual_addr addr="192.0.2.30" where="alias" check="on"/>
    </virtual_interface></interface></interface_list>
    <loadbalancing_list><group name="Web">
      <cluster><host name="n1" power="1"/><host name="n2" power="1"/><host name="n3" power="2"/></cluster>
      <rule proto="arp" filter="on_addr"/>
      <rule port="443" proto="tcp" filter="on_addr"/>
    </group></loadbalancing_list></vip>
    <user/>
    <check><tcp ident="web443" when="both" action="restart"><to addr="127.0.0.1" port="443"/></tcp></check>
  </service>
</safe>
"""


def test_the_mirror_of_the_spec_is_read_in_full() -> None:
    service = load(MIRROR).service
    assert (service.mode, service.boot, service.defaultprim, service.failover) == ("mirror", "on", "alone", True)
    assert service.heart is not None and service.vip is not None and service.rfs is not None
    assert [(beat.name, beat.ident) for beat in service.heart.heartbeats] == [("default", "default"), ("repli", "flow")]
    (interface,) = service.vip.interfaces
    assert (interface.kind, interface.type, interface.mac, interface.arpreroute) == ("real", None, None, True)
    (address,) = service.vip.addresses
    assert (address.addr, address.where, address.check) == (ip_address("192.0.2.20"), "one_side_alias", True)
    (replicated,) = service.rfs.replicated
    assert (replicated.dir, replicated.mode, replicated.tocheck) == ("/srv/data", "read_only", ("marker",))
    assert [(out.path, out.regexpath) for out in replicated.notreplicated] == [(None, r".*\.tmp$")]
    assert service.user is not None and service.user.variables == {"SERVICES": "mydb, myapp"}
    assert service.errd is not None and service.check is not None
    (proc,) = service.errd.procs
    assert (proc.name, proc.service, proc.action, proc.class_) == ("myapp", True, "restart", "prim")
    (tcp,) = service.check.tcp
    assert (tcp.addr, tcp.port, tcp.interval.seconds, tcp.timeout.seconds) == (ip_address("127.0.0.1"), 8080, 10, 5)
    assert service.check.splitbrain is not None and service.check.splitbrain.arg == ("192.0.2.1",)


def test_the_farm_of_the_spec_is_read_in_full() -> None:
    service = load(FARM).service
    assert service.farm is not None and service.vip is not None
    assert [lan.name for lan in service.farm.lans] == ["default"]
    (interface,) = service.vip.interfaces
    assert (interface.kind, interface.type) == ("virtual", "vmac_directed")
    (group,) = service.vip.groups
    assert group.hosts == (Host("n1", 1), Host("n2", 1), Host("n3", 2))
    assert group.rules == (Rule(None, None, "arp", "on_addr"), Rule(None, 443, "tcp", "on_addr"))
    assert (service.heart, service.rfs, service.errd) == (None, None, None)


def test_a_light_module_needs_nothing_but_its_mode() -> None:
    service = load(light()).service
    assert service.mode == "light"
    assert (service.heart, service.farm, service.vip, service.rfs, service.user) == (None,) * 5
    assert service.lans == ()


def test_what_is_absent_has_the_default_of_the_spec() -> None:
    service = load(
        mirror("<user/>" + rfs("/a") + mirror_vip('<virtual_addr addr="192.0.2.9" where="one_side_alias"/>'))
    ).service
    assert (service.boot, service.maxloop, service.failover, service.defaultprim) == ("ignore", 3, True, "alone")
    assert (service.boot_delay, service.loop_interval) == (timedelta(0), timedelta(hours=24))
    assert service.automatic_reboot is False
    assert (
        service.heart is not None and service.vip is not None and service.user is not None and service.rfs is not None
    )
    assert (service.heart.port, service.heart.pulse) == (None, timedelta(milliseconds=700))
    assert service.heart.timeout == timedelta(seconds=30)
    (interface,) = service.vip.interfaces
    assert (interface.check, interface.arpreroute, interface.name) == (True, False, None)
    assert (interface.arpinterval, interface.arpelapse) == (timedelta(seconds=60), timedelta(seconds=1200))
    assert (service.vip.tcpreset, service.vip.scriptcontrol) == (True, False)
    (address,) = service.vip.addresses
    assert (address.check, address.connections, address.netmask) == (True, False, None)
    assert (service.user.nicestoptimeout, service.user.forcestoptimeout) == (timedelta(seconds=300),) * 2
    assert (service.user.logging, service.user.userlogsize, service.user.variables) == ("userlog", 2048, {})
    replication = service.rfs
    assert replication.mountoversuffix == "_For_SafeKit_Replication"
    assert (replication.async_, replication.acl, replication.scripts, replication.reidetail) == ("second",) + (
        False,
    ) * 3
    # Our deviation: the reference waits for 100 s and 30 s.
    assert (replication.locktimeout, replication.sendtimeout) == (timedelta(seconds=10), timedelta(seconds=2))
    assert (replication.nbrei, replication.nbremconn, replication.reicommit, replication.namespacepolicy) == (
        6,
        1,
        0,
        "4",
    )
    assert (replication.reitimeout, replication.checktime) == (timedelta(seconds=150), timedelta(seconds=220))
    assert (replication.checkintv, replication.syncdelta) == (timedelta(seconds=120), timedelta(0))
    assert (replication.packetsize, replication.reiallowedbw, replication.syncat, replication.flow) == (None,) * 4


def test_the_farm_has_its_own_defaults() -> None:
    service = load(farm(farm_vip('<group name="g"><rule proto="udp" filter="on_port"/></group>'))).service
    assert service.farm is not None and service.vip is not None
    assert (service.farm.port, service.farm.mlost_count, service.farm.slost_count) == (None, 20, 10)
    assert service.farm.pulse == timedelta(milliseconds=100)
    assert service.vip.groups[0].hosts == ()
    assert service.vip.groups[0].rules == (Rule(None, None, "udp", "on_port"),)


def test_a_peer_s_neighbour_entry_is_not_pinned_unless_asked_for() -> None:
    """Our deviation: the reference pins it by default."""
    heart = load(mirror()).service.heart
    assert heart is not None and heart.permanent_arp is False


def test_a_heartbeat_takes_from_the_heart_what_it_does_not_say() -> None:
    heart = load(
        mirror(
            heart='<heart pulse="1s" timeout="20s"><heartbeat name="a" ident="x"/><heartbeat name="b" pulse="500"/>'
            '<heartbeat name="c" timeout="5s"/></heart>'
        )
    ).service.heart
    assert heart is not None
    assert [(beat.ident, beat.pulse.total_seconds(), beat.timeout.seconds) for beat in heart.heartbeats] == [
        ("x", 1.0, 20),
        ("b", 0.5, 20),
        ("c", 1.0, 5),
    ]


@pytest.mark.parametrize(
    ("attributes", "sizes"),
    [
        ("", (8388608, 8388608)),
        ('packetsize="65536"', (65536, 8388608)),
        ('packetsize="16777216"', (8388608, 8388608)),
        ('reipacketsize="1048576"', (1048576, 1048576)),
        ('reipacketsize="10000"', (10000, 70000)),
        ('reipacketsize="1048576" ruzone_blocksize="4194304"', (1048576, 4194304)),
    ],
)
def test_sizes_of_resynchronisation_follow_from_each_other(attributes: str, sizes: tuple[int, int]) -> None:
    replication = load(mirror(rfs("/a", attributes=attributes))).service.rfs
    assert replication is not None
    assert (replication.reipacketsize, replication.ruzone_blocksize) == sizes


def test_the_invisible_mac_follows_from_the_first_address() -> None:
    def mac(first: str, type_: str = 'type="vmac_invisible"') -> str | None:
        vip = load(farm(farm_vip(addresses=f'<virtual_addr addr="{first}" where="alias"/>', type_=type_))).service.vip
        assert vip is not None
        return vip.interfaces[0].mac

    assert mac("192.168.56.20") == "5a:fe:c0:a8:38:14"
    assert mac("[2001:db8::1]") is None
    assert mac("192.168.56.20", 'type="vmac_invisible" addr="5A:FE:00:00:00:01"') == "5a:fe:00:00:00:01"
    assert mac("192.168.56.20", 'type="vmac_directed"') is None


@pytest.mark.parametrize(
    ("heart", "flow", "lan"),
    [
        ('<heartbeat name="a"/><heartbeat name="b"/>', "", "a"),
        ('<heartbeat name="a"/><heartbeat name="b" ident="flow"/>', "", "b"),
        ('<heartbeat name="a"/><heartbeat name="b" ident="flow"/>', '<flow name="c"/>', "c"),
    ],
)
def test_the_replication_has_one_lan(heart: str, flow: str, lan: str) -> None:
    assert load(mirror(rfs("/a", flow=flow), heart=f"<heart>{heart}</heart>")).service.replication_lan == lan


def test_without_replication_there_is_no_replication_lan() -> None:
    assert load(mirror()).service.replication_lan is None
    assert load(farm()).service.replication_lan is None


def test_a_flow_without_replication_is_a_warning() -> None:
    loaded = load(mirror(heart='<heart><heartbeat name="a" ident="flow"/></heart>'))
    assert [str(warning) for warning in loaded.warnings] == [
        'userconfig.xml, line 1: <heartbeat ident="flow">: names the network of a replication that the module does not '
        "have: its start will wait for ever"
    ]


def test_what_the_replication_does_another_way_is_a_warning() -> None:
    attributes = 'mountoversuffix="_x" nbremconn="4" namespacepolicy="1" packetsize="16777216" nbrei="3" reicommit="2"'
    loaded = load(mirror(rfs("/a", attributes=attributes)))
    assert [str(warning).removeprefix("userconfig.xml, line 1: ") for warning in loaded.warnings] == [
        '<rfs mountoversuffix="_x">: nothing is renamed here: a directory is mounted over itself',
        '<rfs nbremconn="4">: one connection carries the ordered stream of the replication',
        '<rfs packetsize="16777216">: no NFS is in the way here: requests have the size that they have',
        '<rfs nbrei="3">: counts the threads that read trees; one compares, and the secondary applies in parallel',
        '<rfs reicommit="2">: the secondary commits what it gets every second, and at the end',
        '<rfs namespacepolicy="1">: has a meaning on Windows only; here it is as 4',
    ]


def test_windows_attributes_are_ignored_with_a_warning_that_names_them() -> None:
    loaded = load(mirror(rfs("/a", attributes='iotimeout="300s" nfsbox_options="cross" mountover="off"')))
    assert [(warning.code, warning.message) for warning in loaded.warnings] == [
        (
            "config.windows",
            'userconfig.xml, line 1: <rfs iotimeout="300s">: has a meaning on Windows only and is ignored',
        ),
        (
            "config.windows",
            'userconfig.xml, line 1: <rfs nfsbox_options="cross">: has a meaning on Windows only and is ignored',
        ),
        ("config.obsolete", 'userconfig.xml, line 1: <rfs mountover="off">: obsolete and ignored'),
    ]
    assert unsupported(loaded) == ()
    assert "iotimeout" not in safeconf(loaded)


def test_an_attribute_of_another_mode_is_a_warning() -> None:
    loaded = load(farm(attributes='failover="on"'))
    assert [warning.message for warning in loaded.warnings] == [
        'userconfig.xml, line 1: <service failover="on">: has no effect in a module of mode farm'
    ]


def test_every_checker_is_read() -> None:
    check = load(
        mirror(
            "<check>"
            '<tcp ident="t" when="pre"><to addr="db" port="1" interval="3" timeout="2s"/></tcp>'
            '<tcp ident="u" when="second"><to addr="db" port="1"/></tcp>'
            '<ping ident="p"><to addr="192.0.2.1"/></ping>'
            '<ping ident="q" when="both" action="stop"><to addr="192.0.2.1"/></ping>'
            '<intf ident="i"><to local_addr="192.0.2.2"/></intf>'
            '<ip ident="v"><to addr="192.0.2.3" interval="20"/></ip>'
            '<custom ident="c" when="prim" exec="bin/check" arg="a b"/>'
            '<module name="db"/><module name="web" ident="w"><to addr="n2" port="9453" secure="on"/></module>'
            '<splitbrain arg="192.0.2.1 192.0.2.2"/>'
            "</check>"
        )
    ).service.check
    assert check is not None
    assert [(tcp.ident, tcp.when, tcp.action) for tcp in check.tcp] == [
        ("t", "pre", "wait"),
        ("u", "second", "restart"),
    ]
    assert (check.tcp[0].addr, check.tcp[0].interval.seconds, check.tcp[0].timeout.seconds) == ("db", 3, 2)
    assert [(ping.ident, ping.when, ping.action) for ping in check.ping] == [
        ("p", "pre", "wait"),
        ("q", "both", "stop"),
    ]
    assert (check.intf[0].local_addr, check.intf[0].when) == (ip_address("192.0.2.2"), "pre")
    assert (check.ip[0].when, check.ip[0].interval.seconds) == ("prim", 20)
    assert (check.custom[0].exec, check.custom[0].arg, check.custom[0].action) == ("bin/check", "a b", "noaction")
    here, there = check.module
    assert (here.ident, str(here.addr), here.port, here.secure) == ("db_127.0.0.1", "127.0.0.1", 9010, False)
    assert (here.interval.seconds, here.timeout.seconds) == (10, 5)
    assert (there.ident, there.addr, there.port, there.secure) == ("w", "n2", 9453, True)
    assert check.splitbrain is not None
    assert (check.splitbrain.ident, check.splitbrain.when, check.splitbrain.exec) == ("witness", "pre", "ping")
    assert check.splitbrain.arg == ("192.0.2.1", "192.0.2.2")


def test_an_address_checker_runs_where_the_address_is() -> None:
    check = load(farm('<check><ip ident="v"><to addr="192.0.2.3"/></ip></check>')).service.check
    assert check is not None and check.ip[0].when == "both"


def test_processes_and_virtual_names_are_read() -> None:
    service = load(
        mirror(
            '<user/><vhost><virtualhostname name="app" envfile="vhostenv"/></vhost>'
            '<errd polltimer="10"><proc name="oracle" class="mine" atleast="-1" atmax="0" nameregex="ora_.*"'
            ' argregex="-x" action="handler" start_after="3"/>'
            '<proc name="a.service" service="yes" action="restart" class="prim" restart_services="a, b,"/></errd>'
        )
    ).service
    assert service.vhost is not None and service.errd is not None
    (name,) = service.vhost.virtualhostnames
    assert (name.name, name.envfile, name.when) == ("app", "vhostenv", "prim")
    assert service.errd.polltimer == timedelta(seconds=10)
    first, second = service.errd.procs
    assert (first.atleast, first.atmax, first.class_, first.action, first.start_after) == (-1, 0, "mine", "handler", 3)
    assert (first.nameregex, first.argregex, first.restart_services) == ("ora_.*", "-x", ())
    assert second.restart_services == ("a", "b")


def test_failover_rules_keep_their_text_section_by_section() -> None:
    rules = load(
        mirror(
            '<failover extends="no" period="1s" handle_time="3000">\n'
            "<![CDATA[a: if (custom.x == down && ip.? != up) then stop();]]>\n /* plain &amp; simple */\n"
            "<![CDATA[b: if (\ncustom.y) then wait();]]></failover>"
        )
    ).service.failover_rules
    assert rules is not None
    assert (rules.extends, rules.period.seconds, rules.handle_time.seconds) == (False, 1, 3)
    assert [section.strip() for section in rules.sections] == [
        "a: if (custom.x == down && ip.? != up) then stop();",
        "/* plain & simple */",
        "b: if (\ncustom.y) then wait();",
    ]
    assert rules.section_lines == (2, 2, 4)


def test_rules_without_cdata_are_rules_too() -> None:
    rules = load(mirror("<failover>x: if (ip.b == down) then stop();</failover>")).service.failover_rules
    assert rules is not None and rules.sections == ("x: if (ip.b == down) then stop();",)
    empty = load(mirror("<failover>\n</failover>")).service.failover_rules
    assert empty is not None and empty.sections == ()


def test_the_order_of_the_parts_of_a_service_is_free() -> None:
    one, other = (
        load(mirror("<user/>" + rfs("/a"))),
        load(safe(f'<service mode="mirror">{rfs("/a")}<user/>{HEART}</service>')),
    )
    assert one == other
    assert load(safe(f'<service mode="farm"><user/>{FARM_LAN}</service>')).service.farm is not None


def test_layout_and_lines_take_no_part_in_comparisons() -> None:
    assert load(MIRROR) == load(MIRROR.replace("\n", "\n\n"))
    assert hash(load(MIRROR).service) == hash(load(MIRROR.replace("\n", "\n\n")).service)
    assert load(MIRROR) != load(MIRROR.replace("192.0.2.20", "192.0.2.21"))


def test_elements_remember_their_line_for_later_messages() -> None:
    loaded = load_userconfig(MIRROR, "db/userconfig.xml")
    assert loaded.service.vip is not None and loaded.service.rfs is not None
    address, replicated = loaded.service.vip.addresses[0], loaded.service.rfs.replicated[0]
    assert (address.line, replicated.line, loaded.service.line) == (8, 10, 5)
    error = loaded.error(
        "config.network",
        "in no network of this node",
        line=address.line,
        element="virtual_addr",
        attribute="addr",
        value=str(address.addr),
        expected="an address of 198.51.100.0/24",
    )
    assert error.message == (
        'db/userconfig.xml, line 8: <virtual_addr addr="192.0.2.20">: in no network of this node; '
        "expected an address of 198.51.100.0/24"
    )


def test_the_rendering_means_the_same_and_has_nothing_left_to_expand() -> None:
    for text in (MIRROR, FARM, mirror(rfs("/a b", attributes='mountover="off"'), attributes='boot="off"')):
        loaded = load(text)
        rendered = safeconf(loaded)
        assert load(rendered) == loaded
        assert safeconf(load(rendered)) == rendered
        assert load(rendered).warnings == ()
        assert "%SERVICES%" not in rendered


def test_the_rendering_writes_the_defaults() -> None:
    rendered = safeconf(load(MIRROR))
    assert 'timeout="30000ms"' in rendered
    assert 'value="mydb, myapp"' in rendered
    assert 'failover="on"' not in safeconf(load(FARM))


def test_a_line_break_in_an_element_without_content_means_nothing() -> None:
    assert load(mirror('<user>\n<var name="A" value="1">\n</var></user>')) == load(
        mirror('<user><var name="A" value="1"/></user>')
    )


def test_bytes_of_another_encoding_are_read() -> None:
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>' + mirror('<user><var name="X" value="é"/></user>')
    for content in (text, text.encode("latin-1")):
        user = load_userconfig(content).service.user
        assert user is not None and user.variables == {"X": "é"}


def test_the_hint_of_an_editor_for_the_schema_is_accepted() -> None:
    xsi = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="userconfig.xsd"'
    assert load(mirror().replace("<safe>", f"<safe {xsi}>")) == load(mirror())
