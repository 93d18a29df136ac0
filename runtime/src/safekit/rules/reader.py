"""From the text of a rule section to rules. The first thing that is wrong is named with its line and column.

    rules      := rule*
    rule       := label ":" "if" "(" condition ")" "then" action "(" ")" ";"
    condition  := conjunction ("||" conjunction)*
    conjunction:= term ("&&" term)*
    term       := "!" term | "(" condition ")" | operand (("==" | "!=") operand)?
    operand    := resource | state | "cluster" "(" ")"
    resource   := ["local." | "remote."] class "." (name | "?" | "*")

`/* … */` is a comment. Names may hold dots, colons and dashes, as addresses do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from safekit.rules.language import (
    ACTIONS,
    CLASSES,
    STATES,
    Both,
    Compare,
    Either,
    Expression,
    Not,
    Resource,
    Rule,
    State,
)

_TOKEN = re.compile(
    r"(?P<space>\s+|/\*.*?\*/)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.(?:[A-Za-z0-9_:.@%-]*[A-Za-z0-9_@%-]|[?*]))*)"
    r"|(?P<mark>==|!=|&&|\|\||[!();:])",
    re.DOTALL,
)
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

CLUSTER = Resource("heartbeat", "*")
"""What `cluster()` stands for: every heartbeat of the module."""


class RuleError(Exception):
    """What is wrong: `message`, where (`line` and `column` from 1), the `value` that is there, what was `expected`."""

    def __init__(self, message: str, line: int, column: int, value: str, expected: str) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column
        self.value, self.expected = value, expected


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int
    column: int


def read_rules(text: str, line: int = 1) -> tuple[Rule, ...]:
    """The rules of one section whose text begins in `line`.

    Raises RuleError for the first thing that is no rule.
    """
    reader = _Reader(tuple(_tokens(text, line)))
    rules: list[Rule] = []
    while reader.next.kind != "end":
        rules.append(reader.rule(rules))
    return tuple(rules)


def _tokens(text: str, line: int) -> Iterator[_Token]:
    at, column = 0, 1
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            if text.startswith("/*", at):
                raise RuleError("a comment that does not end", line, column, "/*", "*/")
            value = text[at : at + 1]
            raise RuleError(f"{value!r} has no meaning here", line, column, value, "a word, an operator or ( ) : ;")
        piece, kind = found.group(), cast(str, found.lastgroup)
        if kind != "space":
            yield _Token(kind, piece, line, column)
        lines = piece.count("\n")
        line, column = line + lines, len(piece) - piece.rfind("\n") if lines else column + len(piece)
        at = found.end()
    yield _Token("end", "", line, column)


class _Reader:
    """Reads tokens from left to right, one ahead."""

    def __init__(self, tokens: tuple[_Token, ...]) -> None:
        self._tokens, self._at = tokens, 0

    @property
    def next(self) -> _Token:
        """The token that comes next."""
        return self._tokens[self._at]

    def rule(self, before: list[Rule]) -> Rule:
        """One rule; its label must be new."""
        label = self._word("the label of a rule")
        if not _LABEL.match(label.text):
            raise self._wrong(label, "not a label", "letters, digits and _")
        for known in before:
            if known.label == label.text:
                raise self._wrong(label, f"line {known.line} has a rule of this label", "another label")
        self._take(":")
        self._take("if")
        self._take("(")
        condition = self._condition()
        self._take(")")
        self._take("then")
        action = self._word("an action")
        if action.text not in ACTIONS:
            raise self._wrong(action, "not an action of a rule", _one_of(f"{name}()" for name in ACTIONS))
        for mark in ("(", ")", ";"):
            self._take(mark)
        return Rule(label.text, condition, action.text, label.line)

    def _condition(self) -> Expression:
        left = self._conjunction()
        while self._skip("||"):
            left = Either(left, self._conjunction())
        return left

    def _conjunction(self) -> Expression:
        left = self._term()
        while self._skip("&&"):
            left = Both(left, self._term())
        return left

    def _term(self) -> Expression:
        if self._skip("!"):
            return Not(self._term())
        if self._skip("("):
            inner = self._condition()
            self._take(")")
            return inner
        first = self.next
        left = self._operand()
        operator = self.next
        if operator.text in ("==", "!="):
            self._at += 1
            return Compare(left, cast(Literal["==", "!="], operator.text), self._operand())
        if isinstance(left, State):
            raise self._wrong(first, "a state alone says nothing", "a resource, or resource == state")
        return left

    def _operand(self) -> Resource | State:
        word = self._word("a resource or a state")
        if word.text == "cluster":
            self._take("(")
            self._take(")")
            return CLUSTER
        if word.text in STATES:
            return State(word.text)
        parts = word.text.split(".")
        remote = parts[0] == "remote"
        if parts[0] in ("local", "remote"):
            parts = parts[1:]
        if len(parts) < 2:
            raise self._wrong(word, "neither a resource nor a state", f"class.name, or {_one_of(STATES)}")
        if parts[0] not in CLASSES:
            raise self._wrong(word, f"there is no class {parts[0]!r} of resources", _one_of(CLASSES))
        return Resource(parts[0], ".".join(parts[1:]), remote)

    def _word(self, expected: str) -> _Token:
        word = self.next
        if word.kind != "word":
            raise self._wrong(word, _found(word), expected)
        self._at += 1
        return word

    def _skip(self, mark: str) -> bool:
        if self.next.text != mark:
            return False
        self._at += 1
        return True

    def _take(self, mark: str) -> None:
        if not self._skip(mark):
            raise self._wrong(self.next, _found(self.next), f"`{mark}`")

    @staticmethod
    def _wrong(token: _Token, message: str, expected: str) -> RuleError:
        return RuleError(message, token.line, token.column, token.text, expected)


def _found(token: _Token) -> str:
    return "the rules end here" if token.kind == "end" else f"`{token.text}` does not belong here"


def _one_of(words: object) -> str:
    names = list(cast("Iterator[str]", words))
    return ", ".join(names[:-1]) + " or " + names[-1]
