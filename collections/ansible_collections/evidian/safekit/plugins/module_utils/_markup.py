# Copyright (c) 2026, The evidian.safekit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Declarative data <-> XML, driven by the table of _grammar.py. Pure: no file, no network. Reading XML refuses entities
# and names the line; writing XML names the place in the data. Values that hold a macro (%NAME%) pass as they are.
#
# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.

from __future__ import annotations

import re
import xml.parsers.expat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.evidian.safekit.plugins.module_utils._grammar import (
    AGREEMENT,
    NUMBER,
    SWITCH,
    TEXT,
    TIME,
    Attribute,
    Child,
    Element,
)

_WORDS = {SWITCH: ("on", "off"), AGREEMENT: ("yes", "no")}
_INTEGER = re.compile(r"(0|-?[1-9][0-9]{0,17})\Z")
_MACRO = re.compile(r"%[^%\s]+%")
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class MarkupError(Exception):
    """What is wrong with a configuration, in one sentence that begins with the place."""


@dataclass
class _Node:
    """An element as it was read."""

    name: str
    line: int
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[_Node] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)


# data -> XML


def to_xml(data: Any, grammar: Element) -> str:
    """The XML document of ``data``: one element per line, two spaces per level, in the order of the grammar."""
    lines: list[str] = []
    _write(data, grammar, grammar.name, "", lines)
    return "\n".join(lines) + "\n"


def _write(data: Any, element: Element, place: str, indent: str, lines: list[str]) -> None:
    if element.wrapper:
        data = {element.children[0].key: [] if data is None else data}
    elif element.mark and not isinstance(data, Mapping):
        data = {element.attributes[0].name: data}
    elif data is None:
        data = {}
    if not isinstance(data, Mapping):
        raise MarkupError(f"{place}: expected a mapping, got {_shown(data)}")
    for key in data:
        if key not in element.keys:
            raise MarkupError(
                "{}: unknown key {}, expected one of: {}".format(
                    place, _shown(key), ", ".join(element.keys) or "nothing"
                )
            )
    head = element.name
    for attribute in element.attributes:
        value = data.get(attribute.name)
        if value is not None:
            text = _attribute_text(value, attribute, f"{place}.{attribute.name}")
            head += f' {attribute.name}="{_escaped(text)}"'
    inner: list[str] = []
    for child in element.children:
        if data.get(child.key) is not None or (child.key in data and not child.many):
            _write_child(data[child.key], child, f"{place}.{child.key}", indent + "  ", inner)
    if element.sections is not None:
        inner.extend(_sections(data.get(element.sections), f"{place}.{element.sections}", indent + "  "))
    if inner:
        lines.append(f"{indent}<{head}>")
        lines.extend(inner)
        lines.append(f"{indent}</{element.name}>")
    else:
        lines.append(f"{indent}<{head}/>")


def _write_child(value: Any, child: Child, place: str, indent: str, lines: list[str]) -> None:
    if not child.many:
        _write(value, child.element, place, indent, lines)
        return
    if child.element.pairs:
        if not isinstance(value, Mapping):
            raise MarkupError(f"{place}: expected a mapping of names to values, got {_shown(value)}")
        for name, text in value.items():
            pair = {"name": name, "value": "" if text is None else text}
            _write(pair, child.element, f"{place}.{name}", indent, lines)
        return
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise MarkupError(f"{place}: expected a list, got {_shown(value)}")
    for index, item in enumerate(value):
        _write(item, child.element, f"{place}[{index}]", indent, lines)


def _sections(value: Any, place: str, indent: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise MarkupError(f"{place}: expected a list of texts, got {_shown(value)}")
    lines = []
    for index, text in enumerate(value):
        where = f"{place}[{index}]"
        if not isinstance(text, str):
            raise MarkupError(f"{where}: expected a text, got {_shown(text)}")
        if "]]>" in text:
            raise MarkupError(f"{where}: a rule cannot hold ']]>'")
        _refuse_control(text, where)
        if "\r" in text:
            raise MarkupError(f"{where}: a rule cannot hold a carriage return")
        lines.append(f"{indent}<![CDATA[{text}]]>")
    return lines


def _attribute_text(value: Any, attribute: Attribute, place: str) -> str:
    if isinstance(value, bool):
        words = _WORDS.get(attribute.kind)
        if words is None:
            raise MarkupError(f"{place}: expected {_wanted(attribute)}, got a boolean; write the value in quotes")
        return words[0] if value else words[1]
    if isinstance(value, int):
        if attribute.kind in _WORDS:
            raise MarkupError(f"{place}: expected {_wanted(attribute)}, got {_shown(value)}")
        text = str(int(value))
    elif isinstance(value, str):
        text = str(value)
    else:
        raise MarkupError(f"{place}: expected {_wanted(attribute)}, got {_shown(value)}")
    _refuse_control(text, place)
    allowed = _WORDS.get(attribute.kind, ()) + attribute.words
    if allowed and text not in allowed and not _MACRO.search(text):
        raise MarkupError(f"{place}: expected {_wanted(attribute)}, got {_shown(text)}")
    return text


def _wanted(attribute: Attribute) -> str:
    words = _WORDS.get(attribute.kind, ()) + attribute.words
    if words:
        return "one of " + ", ".join(words)
    return {TEXT: "a text", NUMBER: "an integer", TIME: "a duration such as 200ms, 30s or 24h"}[attribute.kind]


def _refuse_control(text: str, place: str) -> None:
    found = _FORBIDDEN.search(text)
    if found:
        raise MarkupError(f"{place}: the character U+{ord(found.group()):04X} cannot stand in XML")


def _escaped(text: str) -> str:
    for plain, escaped in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ('"', "&quot;"),
        ("\t", "&#9;"),
        ("\n", "&#10;"),
        ("\r", "&#13;"),
    ):
        text = text.replace(plain, escaped)
    return text


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return "a list"
    return "nothing" if value is None else repr(str(value))


# XML -> data


def from_xml(text: str, grammar: Element) -> Any:
    """The declarative data of an XML document; the inverse of ``to_xml``."""
    root = _parse(text)
    if root.name != grammar.name:
        raise MarkupError(f"line {root.line}: expected <{grammar.name}>, got <{root.name}>")
    return _read(root, grammar)


def _read(node: _Node, element: Element) -> Any:
    data: dict[str, Any] = {}
    for name, text in node.attributes.items():
        attribute = element.attribute(name)
        if attribute is None:
            raise MarkupError(
                f"line {node.line}: unknown attribute '{name}' of <{element.name}>, "
                f"expected one of: {_listed(element.attributes)}"
            )
        data[name] = _value(text, attribute)
    for found in node.children:
        child = element.child(found.name)
        if child is None:
            raise MarkupError(
                f"line {found.line}: unknown element <{found.name}> in <{element.name}>, "
                f"expected one of: {_listed([item.element for item in element.children])}"
            )
        _gather(data, _read(found, child.element), child, found)
    if element.sections is not None and node.sections:
        data[element.sections] = list(node.sections)
    if element.wrapper:
        return data.get(element.children[0].key, [])
    if element.mark and list(data) == [element.attributes[0].name]:
        return data[element.attributes[0].name]
    return data


def _listed(named: Sequence[Any]) -> str:
    return ", ".join(item.name for item in named) or "none"


def _gather(data: dict[str, Any], value: Any, child: Child, found: _Node) -> None:
    if not child.many:
        if child.key in data:
            raise MarkupError(f"line {found.line}: a second <{found.name}>, expected one")
        data[child.key] = value
    elif child.element.pairs:
        missing = [name for name in ("name", "value") if name not in value]
        if missing:
            raise MarkupError(f"line {found.line}: <{found.name}> without attribute '{missing[0]}'")
        pairs = data.setdefault(child.key, {})
        if value["name"] in pairs:
            raise MarkupError(f"line {found.line}: a second <{found.name}> named '{value['name']}'")
        pairs[value["name"]] = value["value"]
    else:
        data.setdefault(child.key, []).append(value)


def _value(text: str, attribute: Attribute) -> Any:
    words = _WORDS.get(attribute.kind)
    if words is not None and text in words:
        return text == words[0]
    if attribute.kind in (NUMBER, TIME) and _INTEGER.match(text):
        return int(text)
    return text


def _parse(text: str) -> _Node:
    parser = xml.parsers.expat.ParserCreate()
    parser.buffer_text = True
    parser.ordered_attributes = True
    top = _Node("", 0)
    stack = [top]
    section: list[Optional[list[str]]] = [None]

    def start(name: str, attributes: list[str]) -> None:
        node = _Node(name, parser.CurrentLineNumber, dict(zip(attributes[::2], attributes[1::2])))
        stack[-1].children.append(node)
        stack.append(node)

    def end(_name: str) -> None:
        stack.pop()

    def characters(data: str) -> None:
        if section[0] is not None:
            section[0].append(data)
        elif data.strip():
            raise MarkupError(
                f"line {parser.CurrentLineNumber}: unexpected text {data.strip()!r} in <{stack[-1].name}>"
            )

    def start_section() -> None:
        section[0] = []

    def end_section() -> None:
        stack[-1].sections.append("".join(section[0] or []))
        section[0] = None

    def entity(name: str, *_args: Any) -> None:
        raise MarkupError(f"line {parser.CurrentLineNumber}: the entity '{name}' is refused")

    def external(_context: str, _base: Optional[str], system: Optional[str], _public: Optional[str]) -> int:
        raise MarkupError(f"line {parser.CurrentLineNumber}: the external entity '{system}' is refused")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartCdataSectionHandler = start_section
    parser.EndCdataSectionHandler = end_section
    parser.EntityDeclHandler = entity
    parser.ExternalEntityRefHandler = external
    try:
        parser.Parse(text, True)
    except xml.parsers.expat.ExpatError as error:
        raise MarkupError(
            f"line {error.lineno}: not well-formed XML: {xml.parsers.expat.ErrorString(error.code)}"
        ) from None
    return top.children[0]


# comparing


def differences(before: Any, after: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    """The places where two pieces of declarative data differ: (place, before, after); None stands for absent."""
    if before == after:
        return []
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found: list[tuple[str, Any, Any]] = []
        for key in list(before) + [key for key in after if key not in before]:
            inside = f"{place}.{key}" if place else str(key)
            found.extend(differences(before.get(key), after.get(key), inside))
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        found = []
        for index, (old, new) in enumerate(zip(before, after)):
            found.extend(differences(old, new, f"{place}[{index}]"))
        return found
    return [(place, before, after)]
