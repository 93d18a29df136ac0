# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.evidian.safekit.plugins.filter.userconfig import FilterModule

FILTERS = FilterModule().filters()


@pytest.mark.parametrize(
    "to_name, from_name, data",
    [
        ("to_userconfig", "from_userconfig", {"service": {"mode": "farm", "farm": {"lan": ["default"]}}}),
        (
            "to_cluster",
            "from_cluster",
            {"lans": {"lan": [{"name": "default", "node": [{"name": "n1", "addr": "192.0.2.1"}]}]}},
        ),
    ],
)
def test_the_filters_are_inverses(to_name, from_name, data):
    assert FILTERS[from_name](FILTERS[to_name](data)) == data


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("to_userconfig", "<safe/>", "to_userconfig: expected a mapping, got str"),
        (
            "to_userconfig",
            {"servise": {}},
            "to_userconfig: safe: unknown key 'servise', expected one of: macro, service",
        ),
        ("from_userconfig", {}, "from_userconfig: expected a text, got dict"),
        ("from_userconfig", "<safe>", "from_userconfig: line 1: not well-formed XML: no element found"),
        ("from_cluster", "<safe/>", "from_cluster: line 1: expected <cluster>, got <safe>"),
    ],
)
def test_a_wrong_input_is_a_filter_error(name, value, message):
    with pytest.raises(AnsibleFilterError) as caught:
        FILTERS[name](value)
    assert str(caught.value) == message
