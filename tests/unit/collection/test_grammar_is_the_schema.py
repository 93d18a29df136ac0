"""The collection writes and reads what the nodes accept: its table of elements and attributes is the one of the schema."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ansible_collections.evidian.safekit.plugins.module_utils._grammar import (
    AGREEMENT,
    CLUSTER,
    NUMBER,
    SWITCH,
    TEXT,
    TIME,
    USERCONFIG,
    Element,
)

SCHEMA = Path(__file__).parents[3] / "runtime" / "src" / "safekit" / "config" / "schema"
XS = "{http://www.w3.org/2001/XMLSchema}"

KINDS = {
    "onoff": SWITCH,
    "yesno": AGREEMENT,
    "duration": TIME,
    "duration_or_zero": TIME,
    "port": NUMBER,
    "port_or_any": NUMBER,
    "natural": NUMBER,
    "positive": NUMBER,
    "natural_or_ignored": NUMBER,
}


@dataclass
class Declared:
    """An element as the schema declares it: kind and words of each attribute, and each child with whether it repeats."""

    attributes: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    children: dict[str, tuple[Declared, bool]] = field(default_factory=dict)


class Schema:
    """The elements of one .xsd with its named types in place."""

    def __init__(self, name: str) -> None:
        trees = [ElementTree.parse(SCHEMA / file).getroot() for file in (name, "types.xsd")]
        self.types = {node.get("name"): node for tree in trees for node in tree if node.tag != f"{XS}element"}
        self.root = next(node for node in trees[0] if node.tag == f"{XS}element")

    def declared(self) -> Declared:
        return self._element(self.root)

    def _element(self, node: ElementTree.Element) -> Declared:
        body = self.types[node.get("type")] if node.get("type") else next(iter(node))
        found = Declared()
        for part, repeated in self._parts(body, False):
            if part.tag == f"{XS}attribute":
                found.attributes[str(part.get("name"))] = self._attribute(part)
            else:
                found.children[str(part.get("name"))] = (self._element(part), repeated)
        return found

    def _parts(self, node: ElementTree.Element, repeated: bool) -> Iterator[tuple[ElementTree.Element, bool]]:
        for part in node:
            many = repeated or part.get("maxOccurs") == "unbounded"
            if part.tag in (f"{XS}attribute", f"{XS}element"):
                yield part, many
            elif part.tag == f"{XS}attributeGroup":
                yield from self._parts(self.types[part.get("ref")], False)
            elif part.tag in (f"{XS}sequence", f"{XS}choice", f"{XS}all"):
                yield from self._parts(part, many)

    def _attribute(self, node: ElementTree.Element) -> tuple[str, frozenset[str]]:
        name = node.get("type", "")
        named = KINDS.get(name)
        words = frozenset(str(word.get("value")) for word in self.types.get(name, node).iter(f"{XS}enumeration"))
        if named is not None:
            return named, frozenset()
        if {"on", "off"} <= words:
            return SWITCH, words - {"on", "off"}
        return (NUMBER if words and all(word.isdigit() for word in words) else TEXT), words


def compare(element: Element, declared: Declared, place: str) -> None:
    mine = {attribute.name for attribute in element.attributes}
    assert mine == set(declared.attributes), place
    for attribute in element.attributes:
        assert (attribute.kind, frozenset(attribute.words)) == declared.attributes[attribute.name], (
            f"{place}/@{attribute.name}"
        )
    assert {child.element.name for child in element.children} == set(declared.children), place
    for child in element.children:
        below, repeated = declared.children[child.element.name]
        if child.element.name != "splitbrain":  # one per module, which the schema leaves to the node
            assert child.many == repeated, f"{place}/{child.element.name}"
        compare(child.element, below, f"{place}/{child.element.name}")


@pytest.mark.parametrize(("element", "file"), [(CLUSTER, "cluster.xsd"), (USERCONFIG, "userconfig.xsd")])
def test_the_table_of_the_collection_is_the_schema_of_the_nodes(element: Element, file: str) -> None:
    compare(element, Schema(file).declared(), element.name)
