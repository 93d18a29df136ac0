"""Loads `userconfig.xml` (spec §3): grammar, macros, model, checks within the file, rendering of the whole."""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from safekit.config import build, checks, document
from safekit.config.errors import Problems
from safekit.config.grammar import userconfig_grammar
from safekit.config.model import Unsupported, UserConfig
from safekit.config.support import not_supported


def load_userconfig(
    content: str | bytes, file: str = "userconfig.xml", environment: Mapping[str, str] | None = None
) -> UserConfig:
    """Reads a `userconfig.xml`.

    `file` is the name that messages show; `environment` gives the macros that the file does not define (default: none).
    Raises `ConfigError`. What the file alone cannot tell is checked by `check_module`.
    """
    problems = Problems(file)
    source = document.read(content, userconfig_grammar(), problems, environment or {})
    service = source.root.first("service")
    assert service is not None, "the grammar requires it"
    mode = service.values["mode"]
    checks.check_modes(service, problems)
    problems.settle()
    model = build.service(service)
    checks.check_service(model, problems)
    checks.check_written(service, problems)
    problems.settle()
    return UserConfig(
        macros=build.macros(source.root),
        service=model,
        expanded=_rendered(source, mode),
        not_supported=tuple(not_supported(source.root, mode, file)),
        file=file,
        warnings=tuple(problems.warnings),
    )


def unsupported(userconfig: UserConfig) -> tuple[Unsupported, ...]:
    """What the module asks for and the runtime does not do yet, in the order of the file; empty: it can be applied."""
    return userconfig.not_supported


def safeconf(userconfig: UserConfig) -> str:
    """The whole resulting configuration (`safeconf.xml`): macros expanded, defaults written, no comments."""
    return userconfig.expanded


def _rendered(source: document.Document, mode: str) -> str:
    """The tree that was read, with every default of the grammar that means something in this mode written into it."""
    pairs = [(source.tree, source.root)]
    for tree, node in pairs:
        for attribute in node.element.attributes.values():
            if attribute.ignored:
                tree.attrib.pop(attribute.name, "")
            elif attribute.default is not None and (attribute.modes is None or mode in attribute.modes):
                tree.set(attribute.name, node.written.get(attribute.name, attribute.default))
        pairs.extend(zip(tree, node.children, strict=True))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + etree.tostring(source.tree, encoding="unicode") + "\n"
