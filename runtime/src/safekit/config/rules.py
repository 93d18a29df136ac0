"""The failover rules of a configuration (spec §3.11, §6.4): those that every checker brings, and those that are written."""

from __future__ import annotations

from safekit.config.errors import Problems
from safekit.config.model import FailoverRules, Service
from safekit.rules import Compare, Resource, Rule, RuleError, State, read_rules, resources_of
from safekit.rules.lua import as_simple_rules, is_lua


def failover_rules(service: Service, static: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """All rules of a module that was checked: the static ones, those of its checkers, its own.

    A rule of the file takes the place of one with the same label. `extends="no"` leaves only those of the file.
    """
    written = service.failover_rules
    own = _read(written) if written else ()
    if written is not None and not written.extends:
        return own
    labels = {rule.label for rule in own}
    return (*(rule for rule in (*static, *_generated(service)) if rule.label not in labels), *own)


def _generated(service: Service) -> tuple[Rule, ...]:
    check = service.check
    if check is None:
        return ()
    named = (
        *(("t", "tcp", test.ident, test.action) for test in check.tcp),
        *(("p", "ping", test.ident, test.action) for test in check.ping),
        *(("c", "custom", test.ident, test.action) for test in check.custom),
    )
    return tuple(
        Rule(f"{letter}_{ident}", Compare(Resource(kind, ident), "==", State("down")), action)
        for letter, kind, ident, action in named
        if action != "noaction"
    )


def _read(rules: FailoverRules) -> tuple[Rule, ...]:
    found: tuple[Rule, ...] = ()
    for text, line in zip(rules.sections, rules.section_lines, strict=True):
        found += read_rules(text, line)
    return found


def check_rules(service: Service, problems: Problems) -> None:
    """Notes what is wrong with the rules of the file."""
    rules = service.failover_rules
    if rules is None:
        return
    seen: dict[str, int] = {}
    for text, line in zip(rules.sections, rules.section_lines, strict=True):
        if is_lua(text):
            _refuse_lua(text, line, problems)
            continue
        try:
            found = read_rules(text, line)
        except RuleError as error:
            problems.error(
                "config.rule",
                f"column {error.column}: {error.message}",
                line=error.line,
                element="failover",
                value=error.value or None,
                expected=error.expected,
            )
            continue
        for rule in found:
            _check_rule(rule, service, seen, problems)


def _refuse_lua(text: str, line: int, problems: Problems) -> None:
    simple = as_simple_rules(text)
    problems.error(
        "config.rule",
        "rules in Lua are not carried out",
        line=line,
        element="failover",
        expected=" ".join(simple) if simple else "label: if (class.id == down) then stopstart();",
    )


def _check_rule(rule: Rule, service: Service, seen: dict[str, int], problems: Problems) -> None:
    if rule.label in seen:
        problems.error(
            "config.rule",
            f"line {seen[rule.label]} has a rule of this label",
            line=rule.line,
            element="failover",
            value=rule.label,
            expected="another label",
        )
    seen.setdefault(rule.label, rule.line)
    if rule.action == "swap" and service.mode != "mirror":
        problems.error(
            "config.rule",
            f"swap() has no meaning in a module of mode {service.mode}",
            line=rule.line,
            element="failover",
            value=rule.label,
            expected="stop(), stopstart(), wait() or restart()",
        )
    known = _idents(service)
    for resource in resources_of(rule.condition):
        wrong, expected = "", ""
        if resource.remote and service.mode != "mirror":
            wrong, expected = "only a mirror knows resources of its other node", "a resource of this node"
        elif resource.name not in ("?", "*") and resource.kind in known and resource.name not in known[resource.kind]:
            wrong = f"there is no <{resource.kind}> with this ident"
            expected = " or ".join(sorted(known[resource.kind])) or f"a <{resource.kind}> in <check>"
        if wrong:
            problems.error(
                "config.rule", wrong, line=rule.line, element="failover", value=str(resource), expected=expected
            )


def _idents(service: Service) -> dict[str, set[str]]:
    """The idents of the checkers that only the configuration can name."""
    check = service.check
    return {
        "tcp": {test.ident for test in check.tcp} if check else set(),
        "ping": {test.ident for test in check.ping} if check else set(),
        "proc": {proc.name for proc in service.errd.procs} if service.errd else set(),
    }
