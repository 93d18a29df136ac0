"""What a valid configuration asks for and the runtime does not do yet, after the `sk:` facts of the schema.

Nothing is ignored in silence: what is listed here makes applying the module fail. A written value that asks for what
happens anyway is fine.
"""

from __future__ import annotations

from collections.abc import Iterator

from safekit.config.document import Node
from safekit.config.errors import place, subject
from safekit.config.grammar import Attribute, one_of
from safekit.config.model import Unsupported


def not_supported(node: Node, mode: str, file: str) -> Iterator[Unsupported]:
    """What is not supported in an element and below it, for a module of this mode."""
    element = node.element
    if element.support is not None and mode not in element.support:
        limit = f" in a module of mode {mode}" if element.support else ""
        yield _item(file, node, "", None, f"<{element.name}>{limit}")
        return
    if node.sections and not element.text_supported:
        yield _item(file, node, "", None, f"rules in <{element.name}>")
    for name, text in node.written.items():
        attribute = element.attributes[name]
        if attribute.supported is not None and node.values[name] not in _honoured(attribute):
            known = one_of(attribute.supported) if attribute.supported else "its absence"
            yield _item(file, node, name, text, f"{subject(element.name, name, text)} (supported: {known})")
    for child in node.children:
        yield from not_supported(child, mode, file)


def _honoured(attribute: Attribute) -> list[object]:
    return [attribute.read(text) for text in attribute.supported or ()]


def _item(file: str, node: Node, attribute: str, value: str | None, what: str) -> Unsupported:
    message = f"{place(file, node.line)}: not supported yet: {what}"
    return Unsupported(node.line, node.name, attribute, value, message)
