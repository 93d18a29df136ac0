# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs a module of the collection in this process against a fake node, and returns what it would hand to ansible.

from __future__ import annotations

import json

from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args


class Ended(Exception):
    def __init__(self, result):
        super().__init__(result.get("msg"))
        self.result = result


class Result(dict):
    """What a module ended with; ``failed`` is always there."""


def run(main, node, monkeypatch, check=False, **options):
    def end(failed):
        def ended(self, **result):
            basic.remove_values(result, self.no_log_values)
            raise Ended({"failed": failed, **json.loads(json.dumps(result))})

        return ended

    monkeypatch.setattr(basic.AnsibleModule, "exit_json", end(False))
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", end(True))
    arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": "/tmp"}
    with patch_module_args(arguments):
        try:
            main(node)
        except Ended as ended:
            return Result(ended.result)
    raise AssertionError("the module did not end")


def four_calls(main, node, monkeypatch, **options):
    """check, do, check again, do again: the prediction holds, check mode orders nothing, nor does the second run."""
    orders = len(node.orders)
    predicted = run(main, node, monkeypatch, check=True, **options)
    assert not predicted["failed"], predicted
    assert len(node.orders) == orders, "check mode gave an order"
    done = run(main, node, monkeypatch, **options)
    assert not done["failed"], done
    assert predicted["changed"] is True and done["changed"] is True
    assert predicted["actions"] == done["actions"]
    assert predicted["diff"] == done["diff"]
    assert len(node.orders) > orders
    orders = len(node.orders)
    for check in (True, False):
        again = run(main, node, monkeypatch, check=check, **options)
        assert not again["failed"], again
        assert again["changed"] is False and again["actions"] == [] and again["diff"] == []
    assert len(node.orders) == orders, "the second run gave an order"
    return done
