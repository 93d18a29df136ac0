"""What a module that runs takes over from its edited configuration, and what it refuses (spec §3.0)."""

from __future__ import annotations

import pytest

from safekit.config import ConfigError, check_dynamic, safeconf
from tests.unit.config.samples import farm, farm_vip, light, load, mirror, mirror_vip, rfs

CHECK = '<check><tcp ident="web" when="pre"><to addr="192.0.2.1" port="80"/></tcp></check>'
RULES = '<failover period="1s" handle_time="2s"><![CDATA[a: if (ip.? == down) then stop();]]></failover>'
GROUP = (
    '<group name="web"><cluster><host name="n1" power="1"/></cluster>'
    '<rule port="80" proto="tcp" filter="on_port"/></group>'
)
VIP = mirror_vip('<virtual_addr addr="192.0.2.20" where="one_side_alias"/>')


def taken(before: str, after: str) -> tuple[str, ...]:
    """The warnings with which a change is taken."""
    return check_dynamic(safeconf(load(before)), after, "userconfig.xml", {})


def refused(before: str, after: str) -> list[str]:
    """What is said against it."""
    with pytest.raises(ConfigError) as refusal:
        taken(before, after)
    assert refusal.value.code == "config.not_dynamic"
    return [message.removeprefix("userconfig.xml, line 1: ") for message in refusal.value.messages]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (light(), light()),
        (light("<user/>" + RULES), light("<user/>" + RULES + CHECK)),
        (light(CHECK), light(CHECK.replace("80", "8080"))),
        (light(CHECK), light()),
        (light("<user/>"), light('<user><var name="A" value="b"/></user><errd><proc name="a" class="both"/></errd>')),
        (mirror(), mirror(heart='<heart port="9000" pulse="100ms" timeout="1s"><heartbeat name="pair"/></heart>')),
        (mirror(), mirror(attributes='boot="on" boot_delay="5s" maxloop="9" loop_interval="1h"')),
        (mirror(rfs("/a")), mirror(rfs("/a", attributes='reidetail="on"'))),
        (mirror(), mirror(attributes='failover="on"')),
        (mirror(RULES), mirror(RULES.replace('"1s"', '"1000ms"'))),
        (farm(farm_vip(GROUP)), farm(farm_vip(GROUP.replace('power="1"', 'power="5"')))),
        (farm(farm_vip(GROUP)), farm(farm_vip(GROUP + GROUP.replace("web", "tls").replace("80", "443")))),
        (farm(farm_vip()), farm(farm_vip(GROUP))),
    ],
)
def test_what_may_change_is_taken(before: str, after: str) -> None:
    assert taken(before, after) == ()


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (
            mirror(),
            mirror(attributes='failover="off"'),
            "<service failover=\"off\">: cannot change while the module runs; expected 'on', or the module stopped",
        ),
        (
            mirror(rfs("/a")),
            mirror(rfs("/b")),
            "<replicated dir=\"/b\">: cannot change while the module runs; expected '/a', or the module stopped",
        ),
        (
            mirror(rfs("/a")),
            mirror(rfs("/a", "/b")),
            "<replicated>: cannot be added while the module runs; expected the module stopped",
        ),
        (
            mirror(VIP),
            mirror(),
            "<vip>: cannot be taken away while the module runs; expected the module stopped",
        ),
        (
            farm(farm_vip(GROUP)),
            farm(farm_vip(GROUP, addresses='<virtual_addr addr="192.0.2.31" where="alias"/>')),
            "<virtual_addr addr=\"192.0.2.31\">: cannot change while the module runs; expected '192.0.2.30', "
            "or the module stopped",
        ),
        (
            mirror(RULES),
            mirror(RULES.replace("stop()", "stopstart()")),
            "<failover>: its text cannot change while the module runs; expected the module stopped",
        ),
        (
            mirror(rfs("/a")),
            mirror(rfs("/a", attributes='packetsize="4096"')),
            '<rfs packetsize="4096">: cannot change while the module runs; expected its absence, or the module stopped',
        ),
    ],
)
def test_what_may_not_change_is_refused_by_name(before: str, after: str, sentence: str) -> None:
    assert sentence in refused(before, after)


def test_the_line_is_that_of_the_edited_file() -> None:
    with pytest.raises(ConfigError) as refusal:
        taken(
            mirror(),
            "<safe>\n\n<service mode='mirror'\nfailover='off'><heart><heartbeat name='pair'/></heart></service></safe>",
        )
    assert refusal.value.line in (3, 4)


def test_a_macro_that_says_the_same_is_no_change() -> None:
    assert taken(mirror(rfs("/a")), mirror(rfs("%DIR%"), macros='<macro name="DIR" value="/a"/>')) == ()


def test_what_the_data_plane_was_told_at_its_start_has_its_effect_at_the_next() -> None:
    after = mirror(rfs("/a", attributes='async="none" nbrei="2"', flow='<flow name="pair"/>'))
    assert [warning.split(":")[0] for warning in taken(mirror(rfs("/a")), after)] == [
        "rfs async",
        "rfs nbrei",
        "rfs flow",
    ]
