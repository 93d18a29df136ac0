"""The tables of the grammar, read from the XSD: elements, attributes, types, defaults, the `sk:` facts of `types.xsd`.

The schema is the single source. libxml2 validates with it; these tables give the messages, the typed values and what
is dynamic, ignored or not supported yet. Only the part of XSD that our schemas use is understood; anything else fails
loudly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lxml import etree

from safekit.config import values
from safekit.config.crontab import crontab

SCHEMAS = Path(__file__).parent / "schema"
_XS = "{http://www.w3.org/2001/XMLSchema}"
_SK = "{urn:evidian:safekit:facts}"
_WHITE_SPACE = re.compile("[ \t\r\n]+")
"""Of XML: a space that does not break is a character like any other."""


@dataclass(frozen=True, slots=True)
class SimpleType:
    """A value type: its name ("" when written in place), what it looks like, and what an error says was expected."""

    name: str
    collapse: bool
    choices: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...]
    shortest: int
    expected: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute. `modes` and `supported` are None where the schema says nothing (every mode, every value)."""

    name: str
    type: SimpleType
    required: bool
    default: str | None
    unit: str
    dyn: bool
    windows: bool
    obsolete: bool
    modes: tuple[str, ...] | None
    supported: tuple[str, ...] | None

    @property
    def ignored(self) -> bool:
        """Accepted, and without any effect here."""
        return self.windows or self.obsolete

    @property
    def expected(self) -> str:
        """What an error says about a bad value."""
        if self.unit:
            return values.duration_expected(self.unit, zero=self.type.name == "duration_or_zero")
        return self.type.expected

    def read(self, text: str) -> object:
        """The typed value of a text; raises `values.BadValue`."""
        kind = self.type
        text = _WHITE_SPACE.sub(" ", text).strip(" ") if kind.collapse else text
        if kind.choices and text not in kind.choices:
            raise values.BadValue("no such value", expected=one_of(kind.choices))
        if len(text) < kind.shortest or not all(pattern.fullmatch(text) for pattern in kind.patterns):
            if self.unit:
                raise values.BadValue("not a time value", code="config.duration", expected=self.expected)
            raise values.BadValue("not a valid value" if text else "empty")
        if self.unit:
            return values.duration(text, self.unit)
        reader = crontab if kind.name == "crontab" else values.READERS.get(kind.name, str)
        return reader(text)


@dataclass(frozen=True, slots=True)
class Child:
    """A place for an element inside another; `maximum` is None for any number."""

    element: Element
    minimum: int
    maximum: int | None


@dataclass(frozen=True, slots=True)
class Element:
    """One element in its place. `arrangement` is "sequence" (in this order), "all" (any order), "choice" (one of them),
    "choices" (any of them in any order) or "" (no child)."""

    name: str
    attributes: Mapping[str, Attribute]
    arrangement: str
    children: tuple[Child, ...]
    text: bool
    dyn: bool
    modes: tuple[str, ...] | None
    support: tuple[str, ...] | None
    text_supported: bool

    def child(self, name: str) -> Element | None:
        """The element that this name means here."""
        return next((child.element for child in self.children if child.element.name == name), None)


@dataclass(frozen=True, slots=True)
class Grammar:
    """One kind of file: the tables from its root on, and libxml2's validator."""

    root: Element
    schema: etree.XMLSchema


def one_of(choices: tuple[str, ...]) -> str:
    """The sentence part for a closed list of values."""
    return choices[0] if len(choices) == 1 else "one of " + ", ".join(choices)


def elements(root: Element, path: str = "") -> Iterator[tuple[str, Element]]:
    """Every element of a grammar with its path, the root first (`safe/service/heart`)."""
    here = f"{path}/{root.name}" if path else root.name
    yield here, root
    for child in root.children:
        yield from elements(child.element, here)


@cache
def cluster_grammar() -> Grammar:
    """The grammar of `cluster.xml` (spec §2)."""
    return _Reader(SCHEMAS / "cluster.xsd").grammar()


@cache
def userconfig_grammar() -> Grammar:
    """The grammar of `userconfig.xml` (spec §3)."""
    return _Reader(SCHEMAS / "userconfig.xsd").grammar()


class _Reader:
    """Turns one schema document, with what it includes, into tables."""

    def __init__(self, path: Path) -> None:
        self._tree = etree.parse(path)
        roots = [self._tree.getroot()]
        for include in roots[0].iterfind(f"{_XS}include"):
            roots.append(etree.parse(path.parent / include.get("schemaLocation", "")).getroot())
        self._named = {
            (part.tag, part.get("name", "")): part for root in roots for part in root.iterchildren(tag=etree.Element)
        }

    def grammar(self) -> Grammar:
        (root,) = (part for (tag, _), part in self._named.items() if tag == f"{_XS}element")
        return Grammar(self._element(root), etree.XMLSchema(self._tree))

    def _element(self, node: etree._Element) -> Element:
        type_name = node.get("type")
        kind = self._named[f"{_XS}complexType", type_name] if type_name else node.find(f"{_XS}complexType")
        assert kind is not None, f"<{node.get('name')}> has no complex type"
        arrangement = ""
        children: tuple[Child, ...] = ()
        for group in kind.iterchildren(f"{_XS}sequence", f"{_XS}all", f"{_XS}choice"):
            arrangement, children = self._group(group)
        return Element(
            name=node.get("name", ""),
            attributes={attribute.name: attribute for attribute in self._attributes(kind)},
            arrangement=arrangement,
            children=children,
            text=kind.get("mixed") == "true",
            dyn=node.get(f"{_SK}dyn") == "yes",
            modes=_words(node.get(f"{_SK}modes")),
            support=() if (support := node.get(f"{_SK}support")) == "no" else _words(support),
            text_supported=kind.get(f"{_SK}text-support") != "no",
        )

    def _group(self, group: etree._Element) -> tuple[str, tuple[Child, ...]]:
        arrangement = etree.QName(group).localname
        if arrangement == "choice" and group.get("maxOccurs") == "unbounded":
            arrangement = "choices"
        children = []
        for node in group.iterchildren(f"{_XS}element"):
            maximum = node.get("maxOccurs", "1")
            if arrangement == "choices":
                children.append(Child(self._element(node), 0, None))
                continue
            children.append(
                Child(
                    self._element(node),
                    int(node.get("minOccurs", "1")),
                    None if maximum == "unbounded" else int(maximum),
                )
            )
        return arrangement, tuple(children)

    def _attributes(self, holder: etree._Element) -> Iterator[Attribute]:
        for node in holder.iterchildren(f"{_XS}attribute", f"{_XS}attributeGroup"):
            if node.get("ref"):
                yield from self._attributes(self._named[node.tag, node.get("ref", "")])
                continue
            supported = node.get(f"{_SK}supported")
            default = node.get("default")
            yield Attribute(
                name=node.get("name", ""),
                type=self._type(node),
                required=node.get("use") == "required",
                default=default,
                unit=node.get(f"{_SK}unit", ""),
                dyn=node.get(f"{_SK}dyn") == "yes",
                windows=node.get(f"{_SK}platform") == "windows",
                obsolete=node.get(f"{_SK}obsolete") == "yes",
                modes=_words(node.get(f"{_SK}modes")),
                supported=(default or "",) if supported == "default" else _words(supported),
            )

    def _type(self, attribute: etree._Element) -> SimpleType:
        name = attribute.get("type", "")
        node = self._named[f"{_XS}simpleType", name] if name else attribute.find(f"{_XS}simpleType")
        assert node is not None, f"the attribute {attribute.get('name')} has no type"
        facets = node.find(f"{_XS}restriction")
        assert facets is not None, f"the type of {attribute.get('name')} is no restriction"
        shortest = facets.find(f"{_XS}minLength")
        choices = tuple(facet.get("value", "") for facet in facets.iterfind(f"{_XS}enumeration"))
        patterns = (facet.get("value", "") for facet in facets.iterfind(f"{_XS}pattern"))
        return SimpleType(
            name=name,
            collapse=facets.get("base") == "xs:token",
            choices=choices,
            patterns=tuple(re.compile(pattern, re.ASCII) for pattern in patterns),
            shortest=0 if shortest is None else int(shortest.get("value", "0")),
            expected=node.get(f"{_SK}expected") or one_of(choices),
        )


def _words(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(text.split())
