"""What may change while a module runs (spec §3.0, the `sk:dyn` facts of the schema): the differences that may not.

Two files are compared as they are understood, defaults and macros in place: what is written otherwise and means the same is
no difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from safekit.config import document
from safekit.config.document import Node
from safekit.config.errors import Problems
from safekit.config.grammar import userconfig_grammar

_LATER = ("async", "nbrei", "reitimeout")
"""Dynamic attributes of `<rfs>` that the running data plane was told when it started."""


def check_dynamic(active: str, edited: str | bytes, file: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Refuses changes that a running module cannot take; what is taken, and has its effect at the next start, is told.

    `active` is the `safeconf.xml` in force, `edited` the `userconfig.xml` of the name `file` that is to be applied. Raises
    `ConfigError` with every such change.
    """
    problems, before, after = Problems(file), _service(active, "safeconf.xml", {}), _service(edited, file, environment)
    _compare(before, after, problems)
    problems.settle()
    return tuple(_told_later(before, after))


def _service(content: str | bytes, file: str, environment: Mapping[str, str]) -> Node:
    service = document.read(content, userconfig_grammar(), Problems(file), environment).root.first("service")
    assert service is not None, "the grammar requires it"
    return service


def _compare(before: Node, after: Node, problems: Problems) -> None:
    for name, attribute in after.element.attributes.items():
        if attribute.dyn or attribute.ignored or before.values[name] == after.values[name]:
            continue
        former = before.written.get(name, attribute.default)
        problems.error(
            "config.not_dynamic",
            "cannot change while the module runs",
            line=after.line,
            element=after.name,
            attribute=name,
            value=after.written.get(name, attribute.default or ""),
            expected=f"{former!r}, or the module stopped"
            if former is not None
            else "its absence, or the module stopped",
        )
    if [text for _, text in before.sections] != [text for _, text in after.sections]:
        _refuse(after, "its text cannot change while the module runs", after.line, problems)
    for child in after.element.children:
        if not child.element.dyn:
            _compare_all(child.element.name, before, after, problems)


def _compare_all(name: str, before: Node, after: Node, problems: Problems) -> None:
    former, present = before.all(name), after.all(name)
    for one, other in zip(former, present, strict=False):
        _compare(one, other, problems)
    for added in present[len(former) :]:
        _refuse(added, "cannot be added while the module runs", added.line, problems)
    for removed in former[len(present) :]:
        _refuse(removed, "cannot be taken away while the module runs", after.line, problems)


def _refuse(node: Node, why: str, line: int, problems: Problems) -> None:
    problems.error("config.not_dynamic", why, line=line, element=node.name, expected="the module stopped")


def _told_later(before: Node, after: Node) -> Iterator[str]:
    one, other = before.first("rfs"), after.first("rfs")
    if one is None or other is None:
        return
    for name in _LATER:
        if one.values[name] != other.values[name]:
            yield f"rfs {name}: has its effect when the module is started the next time"
    flows = [tuple(flow.values["name"] for flow in node.all("flow")) for node in (one, other)]
    if flows[0] != flows[1]:
        yield "rfs flow: has its effect when the module is started the next time"
