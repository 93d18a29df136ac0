"""From bytes to a typed tree: safe parsing, macros, then each element and attribute against the grammar.

Nothing here knows what an element means. Entities, external files and network are off; a DOCTYPE is accepted and read
no further. Macros (spec §3.0) are expanded in the parsed tree, not in the text, so that line numbers stay those of the
file and a value can never change the structure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

from lxml import etree

from safekit.config import values
from safekit.config.errors import ConfigError, Problems, shortened
from safekit.config.grammar import Attribute, Element, Grammar, one_of

MACRO = re.compile(r"%([A-Za-z_][A-Za-z0-9_]*)%", re.ASCII)
LARGEST_FILE = 4 * 1024 * 1024
_POSITION = re.compile(r", line [0-9]+, column ([0-9]+)\Z", re.ASCII)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_XSI = "{http://www.w3.org/2001/XMLSchema-instance}"


@dataclass(frozen=True, slots=True)
class Node:
    """One element of the file: typed values of all its attributes (defaults included), and which of them were written.

    An attribute that is absent and has no default has the value None; an ignored one is left out of `values`.
    """

    element: Element
    line: int
    values: Mapping[str, Any]
    written: Mapping[str, str]
    children: tuple[Node, ...]
    sections: tuple[tuple[int, str], ...]

    @property
    def name(self) -> str:
        """The element's name."""
        return self.element.name

    def all(self, name: str) -> tuple[Node, ...]:
        """The children of this name, in the order of the file."""
        return tuple(child for child in self.children if child.name == name)

    def first(self, name: str) -> Node | None:
        """The first child of this name."""
        return next((child for child in self.children if child.name == name), None)


@dataclass(frozen=True, slots=True)
class Document:
    """A file that follows its grammar. `tree` is what was read, macros expanded."""

    root: Node
    tree: etree._Element


def read(content: str | bytes, grammar: Grammar, problems: Problems, environment: Mapping[str, str] | None) -> Document:
    """Parses and validates one file.

    `environment` gives the macros that the file does not define; None means that this kind of file has no macros.
    Raises `ConfigError` with every problem of form that the file has; warnings go to `problems`.
    """
    tree = _parse(content, grammar.root.name, problems)
    if environment is not None:
        _expand_macros(tree, environment, problems)
    root = _element(tree, grammar.root, problems)
    problems.settle()
    _validate(tree, grammar, problems)
    return Document(root, tree)


def _parse(content: str | bytes, root_name: str, problems: Problems) -> etree._Element:
    encoding = None
    if isinstance(content, str):
        # The text is decoded already: an encoding that its declaration names is no longer true.
        content, encoding = content.encode("utf-8", "surrogatepass"), "utf-8"
    if len(content) > LARGEST_FILE:
        problems.error("config.malformed", "the file is too large", expected=f"at most {LARGEST_FILE} bytes")
        problems.settle()
    parser = etree.XMLParser(
        encoding=encoding,
        resolve_entities=False,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        strip_cdata=False,
    )
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise ConfigError(
            "config.malformed",
            f"not well-formed XML ({_fault(error)})" if content.strip() else "the file is empty",
            file=problems.file,
            line=error.lineno or 0,
            expected=f"an XML document <{root_name}>",
        ) from error
    if root.tag != root_name:
        problems.error(
            "config.unknown_element",
            "not the root element of this file",
            line=_line(root),
            element=str(root.tag),
            expected=f"<{root_name}>",
        )
        problems.settle()
    doctype = cast(Any, root.getroottree().docinfo.internalDTD)
    if doctype is not None and (doctype.name != root_name or _has_internal_subset(root)):
        problems.error(
            "config.doctype",
            "a DOCTYPE may only name the root element",
            line=1,
            expected=f"<!DOCTYPE {root_name}> or no DOCTYPE",
        )
        problems.settle()
    return root


def _fault(error: etree.XMLSyntaxError) -> str:
    """libxml2's words on one line, with the column and without the line, which has its own place."""
    return shortened(_POSITION.sub(r", column \1", str(error.msg)), 160)


def _has_internal_subset(root: etree._Element) -> bool:
    """The DOCTYPE declares something: it is then longer than the name and the identifiers that lxml tells of it."""
    document = root.getroottree()
    prolog = etree.tostring(document, encoding="unicode").partition(f"<{root.tag}")[0]
    told: str = cast(Any, document.docinfo).doctype
    return prolog.strip() != told


def _expand_macros(root: etree._Element, environment: Mapping[str, str], problems: Problems) -> None:
    """Replaces `%NAME%` in document order: the macro of the file if it is defined above, else the environment.

    What a macro brings in is not looked at again: a value may hold `%` signs.
    """
    macros: dict[str, tuple[str, int]] = {}

    def replace(text: str, node: etree._Element, attribute: str) -> str:
        def value_of(match: re.Match[str]) -> str:
            name = match[1]
            if name in macros:
                return macros[name][0]
            if name in environment:
                return environment[name]
            problems.error(
                "config.macro",
                f"the macro {name} is not defined",
                line=_line(node),
                element=str(node.tag),
                attribute=attribute,
                value=text if attribute else None,
                expected=f'<macro name="{name}" value="…"/> above, or an environment variable {name}',
            )
            return match[0]

        return MACRO.sub(value_of, text)

    for node in list(root.iter(tag=etree.Element)):
        is_macro = node.tag == "macro" and node.getparent() is root
        for attribute, text in _written(node):
            if "%" in text and not (is_macro and attribute == "name"):
                try:
                    node.set(attribute, replace(text, node, attribute))
                except ValueError:
                    problems.error(
                        "config.macro",
                        "a macro brings in a character that XML does not allow",
                        line=_line(node),
                        element=str(node.tag),
                        attribute=attribute,
                        value=text,
                    )
        parent = node.getparent()
        if parent is not None and len(node) == 0 and MACRO.search(node.text or ""):
            _replace_text(node, parent, replace, problems)
        if is_macro and (name := node.get("name")):
            if name in macros:
                problems.error(
                    "config.duplicate",
                    f"this macro is defined already in line {macros[name][1]}",
                    line=_line(node),
                    element="macro",
                    attribute="name",
                    value=name,
                    expected="each macro defined once",
                )
            macros[name] = (node.get("value", ""), _line(node))


def _replace_text(
    node: etree._Element,
    parent: etree._Element,
    replace: Callable[[str, etree._Element, str], str],
    problems: Problems,
) -> None:
    """Expands the text of an element. Several sections stay several: lxml cannot write that, so they are parsed."""
    expanded = [(line, replace(section, node, "")) for line, section in _sections(node)]
    try:
        if any("]]>" in section for _, section in expanded):
            raise ValueError
        written = ""
        for line, section in expanded:  # each in its own line, whatever stood between them
            written += "\n" * (line - _line(node) - written.count("\n")) + f"<![CDATA[{section}]]>"
        fresh = etree.fromstring(f"<{node.tag}>{written}</{node.tag}>", etree.XMLParser(strip_cdata=False))
    except (ValueError, etree.XMLSyntaxError):
        problems.error(
            "config.macro",
            "a macro brings in a character that XML does not allow",
            line=_line(node),
            element=str(node.tag),
        )
        return
    fresh.attrib.update(node.attrib)
    fresh.sourceline, fresh.tail = node.sourceline, node.tail
    parent.replace(node, fresh)


def _sections(node: etree._Element) -> tuple[tuple[int, str], ...]:
    """The CDATA sections of an element in their order, with their lines; text outside of them is a section too."""
    if not node.text or not node.text.strip():
        return ()
    written = etree.tostring(node, encoding="unicode", with_tail=False)
    content = written[written.index(">") + 1 : written.rindex("<")]
    sections, line = [], _line(node)
    for index, part in enumerate(_CDATA.split(content)):
        sections.append((line, part if index % 2 else etree.fromstring(f"<text>{part}</text>").text or ""))
        line += part.count("\n")
    return tuple((line, section) for line, section in sections if section.strip())


def _line(node: etree._Element) -> int:
    line: int | None = cast(Any, node).sourceline
    return line or 0


def _written(node: etree._Element) -> list[tuple[str, str]]:
    return [(str(name), str(text)) for name, text in node.attrib.items()]


def _element(node: etree._Element, element: Element, problems: Problems) -> Node:
    """The typed form of one element and of what is below it; problems are noted and the reading goes on."""
    children = []
    for child in node:
        known = element.child(str(child.tag))
        if known is None:
            names = tuple(f"<{place.element.name}>" for place in element.children)
            problems.error(
                "config.unknown_element",
                f"not an element of <{element.name}>",
                line=_line(child),
                element=_local(child.tag),
                expected=one_of(names) if names else "no element",
            )
            continue
        children.append(_element(child, known, problems))
    _check_arrangement(node, element, tuple(children), problems)
    stray = [
        text for text in (None if element.text else node.text, *(child.tail for child in node)) if text and text.strip()
    ]
    if stray:
        problems.error(
            "config.text",
            f"text has no meaning here: {shortened(stray[0])}",
            line=_line(node),
            element=element.name,
            expected="attributes and elements only",
        )
    elif not element.children and not element.text:
        node.text = None  # XSD allows no line break in an element without content; nobody means anything by it
    typed, written = _attributes(node, element, problems)
    return Node(element, _line(node), typed, written, tuple(children), _sections(node) if element.text else ())


def _check_arrangement(node: etree._Element, element: Element, children: tuple[Node, ...], problems: Problems) -> None:
    """How many children of which name, and in which order."""
    places = [child.element.name for child in element.children]
    if element.arrangement == "choice":
        names = one_of(tuple(f"<{name}>" for name in places))
        if not children and not len(node):
            problems.error(
                "config.missing", "an element is missing", line=_line(node), element=element.name, expected=names
            )
        for surplus in children[1:]:
            problems.error(
                "config.too_many",
                f"<{element.name}> holds one element only",
                line=surplus.line,
                element=surplus.name,
                expected=names,
            )
        return
    for place in element.children:
        found = [child for child in children if child.element is place.element]
        if len(found) < place.minimum:
            problems.error(
                "config.missing",
                f"the element <{place.element.name}> is missing",
                line=_line(node),
                element=element.name,
                expected=f"{'one' if place.maximum else 'at least one'} <{place.element.name}> in <{element.name}>",
            )
        if place.maximum is not None:
            for surplus in found[place.maximum :]:
                problems.error(
                    "config.too_many",
                    f"there is one already, in line {found[0].line}",
                    line=surplus.line,
                    element=surplus.name,
                    expected=f"at most one <{surplus.name}> in <{element.name}>",
                )
    if element.arrangement == "sequence":
        for before, after in pairwise(children):
            if places.index(after.name) < places.index(before.name):
                problems.error(
                    "config.order",
                    f"it stands after <{before.name}> of line {before.line}",
                    line=after.line,
                    element=after.name,
                    expected="the order " + ", ".join(f"<{name}>" for name in places),
                )


def _attributes(node: etree._Element, element: Element, problems: Problems) -> tuple[dict[str, Any], dict[str, str]]:
    """The typed values of all attributes of an element, and the texts of those that are written."""
    written: dict[str, str] = {}
    typed: dict[str, Any] = {}
    for name, value in _written(node):
        if name.startswith(_XSI):
            continue
        attribute = element.attributes.get(name)
        if attribute is None:
            names = tuple(known.name for known in element.attributes.values() if not known.ignored)
            problems.error(
                "config.unknown_attribute",
                f"<{element.name}> has no such attribute",
                line=_line(node),
                element=element.name,
                attribute=_local(name),
                value=value,
                expected=one_of(names) if names else "no attribute",
            )
        elif attribute.ignored:
            _warn_ignored(node, attribute, value, problems)
        else:
            written[attribute.name] = value
    for attribute in element.attributes.values():
        if attribute.ignored:
            continue
        text = written.get(attribute.name, attribute.default)
        typed[attribute.name] = None
        if text is None:
            if attribute.required:
                problems.error(
                    "config.missing",
                    "the attribute is missing",
                    line=_line(node),
                    element=element.name,
                    attribute=attribute.name,
                    expected=attribute.expected,
                )
            continue
        try:
            typed[attribute.name] = attribute.read(text)
        except values.BadValue as bad:
            problems.error(
                bad.code,
                bad.reason,
                line=_line(node),
                element=element.name,
                attribute=attribute.name,
                value=text,
                expected=bad.expected or attribute.expected,
            )
    return typed, written


def _warn_ignored(node: etree._Element, attribute: Attribute, text: str, problems: Problems) -> None:
    code, reason = "config.obsolete", "obsolete and ignored"
    if attribute.windows:
        code, reason = "config.windows", "has a meaning on Windows only and is ignored"
    problems.warn(code, reason, line=_line(node), element=str(node.tag), attribute=attribute.name, value=text)


def _local(name: object) -> str:
    """A name without its namespace."""
    return str(name).rpartition("}")[2]


def _validate(tree: etree._Element, grammar: Grammar, problems: Problems) -> None:
    """The last word is libxml2's: nothing is applied that the schema itself refuses."""
    if not grammar.schema.validate(tree):
        for entry in cast(Any, grammar.schema.error_log):
            problems.error("config.schema", shortened(entry.message, 160), line=entry.line)
        problems.settle()
