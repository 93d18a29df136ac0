# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The filters between declarative data and the two XML documents of a cluster. Their documentation stands beside this
# file, one .yml each; the work is done by module_utils/_markup.py.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.evidian.safekit.plugins.module_utils._grammar import CLUSTER, USERCONFIG, Element
from ansible_collections.evidian.safekit.plugins.module_utils._markup import MarkupError, from_xml, to_xml


def _render(data: Any, grammar: Element, name: str) -> str:
    if not isinstance(data, dict):
        raise AnsibleFilterError(f"{name}: expected a mapping, got {type(data).__name__}")
    try:
        return to_xml(data, grammar)
    except MarkupError as error:
        raise AnsibleFilterError(f"{name}: {error}") from error


def _read(text: Any, grammar: Element, name: str) -> Any:
    if not isinstance(text, str):
        raise AnsibleFilterError(f"{name}: expected a text, got {type(text).__name__}")
    try:
        return from_xml(text, grammar)
    except MarkupError as error:
        raise AnsibleFilterError(f"{name}: {error}") from error


def to_userconfig(data: Any) -> str:
    return _render(data, USERCONFIG, "to_userconfig")


def from_userconfig(text: Any) -> Any:
    return _read(text, USERCONFIG, "from_userconfig")


def to_cluster(data: Any) -> str:
    return _render(data, CLUSTER, "to_cluster")


def from_cluster(text: Any) -> Any:
    return _read(text, CLUSTER, "from_cluster")


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "to_userconfig": to_userconfig,
            "from_userconfig": from_userconfig,
            "to_cluster": to_cluster,
            "from_cluster": from_cluster,
        }
