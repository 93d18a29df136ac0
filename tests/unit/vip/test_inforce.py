"""The groups in force, as a record keeps them and as nodes compare them."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

import pytest

from safekit.vip.inforce import digest, read, written
from safekit.vip.service import BalancingGroup, BalancingRule, HashKey, Protocol

WEB = BalancingGroup(
    "web",
    (
        BalancingRule(Protocol.TCP, HashKey.ON_PORT, None, 80),
        BalancingRule(Protocol.UDP, HashKey.ON_IPID, ip_address("192.0.2.9"), None),
    ),
    {"n2": 3, "n1": 0},
    (None, ip_address("fd00::9")),
)
REST = BalancingGroup("rest", (), {})


def test_what_was_written_is_read_again() -> None:
    assert read(json.loads(json.dumps(written((WEB, REST))))) == (WEB, REST)


def test_the_order_of_the_hosts_says_nothing() -> None:
    assert digest((WEB,)) == digest((replace(WEB, powers={"n1": 0, "n2": 3}),))


def test_every_fact_tells_groups_apart() -> None:
    others = [
        (WEB, REST),
        (REST, WEB),
        (replace(WEB, name="w"),),
        (replace(WEB, powers={"n1": 1, "n2": 3}),),
        (replace(WEB, asked=(None,)),),
        (replace(WEB, rules=WEB.rules[:1]),),
        (replace(WEB, rules=(replace(WEB.rules[0], key=HashKey.ON_ADDR), WEB.rules[1])),),
        (replace(WEB, rules=(replace(WEB.rules[0], port=81), WEB.rules[1])),),
    ]
    assert len({digest(one) for one in [(WEB,), *others]}) == len(others) + 1


@pytest.mark.parametrize(
    "damaged", ([{}], [{"name": "web"}], [{**written((WEB,))[0], "rules": [["tcp", "on_what", None, 1]]}])
)
def test_what_was_not_written_here_is_refused(damaged: list[dict[str, object]]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        read(damaged)
