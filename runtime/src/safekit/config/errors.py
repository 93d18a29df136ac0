"""What is wrong with a configuration, as a value: where it stands, what was written, what was expected.

One exception type for the whole of `safekit.config`. The text is made here, once, so that the CLI, the API and a
playbook show the same sentence. Codes are stable; messages are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


def place(file: str, line: int) -> str:
    """`userconfig.xml, line 4`, or as much of it as is known."""
    return ", ".join(part for part in (file, f"line {line}" if line else "") if part)


def subject(element: str, attribute: str, value: str | None) -> str:
    """`<heart pulse="7x">`, or as much of it as is known."""
    if not element:
        return ""
    if not attribute:
        return f"<{element}>"
    return f"<{element} {attribute}>" if value is None else f'<{element} {attribute}="{shortened(value)}">'


def shortened(value: str, limit: int = 80) -> str:
    """A value fit for one line of a log."""
    flat = " ".join(value.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


class ConfigError(Exception):
    """A configuration that cannot be applied.

    `code` is one of `config.*` or `package.*`; `line` is 0 and the texts are empty where they are not known. `others`
    holds what else is wrong with the same input, each a `ConfigError` of its own.
    """

    def __init__(
        self,
        code: str,
        reason: str,
        *,
        file: str = "",
        line: int = 0,
        element: str = "",
        attribute: str = "",
        value: str | None = None,
        expected: str = "",
        others: Sequence[ConfigError] = (),
    ) -> None:
        self.code = code
        self.reason = reason
        self.file = file
        self.line = line
        self.element = element
        self.attribute = attribute
        self.value = value
        self.expected = expected
        self.others = tuple(others)
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """One sentence: file, line, element, attribute, value, what is wrong, what was expected."""
        parts = (place(self.file, self.line), subject(self.element, self.attribute, self.value), self.reason)
        sentence = ": ".join(part for part in parts if part)
        return f"{sentence}; expected {self.expected}" if self.expected else sentence

    @property
    def messages(self) -> tuple[str, ...]:
        """The sentence of this problem, then those of the others."""
        return (self.message, *(other.message for other in self.others))

    def as_dict(self) -> dict[str, object]:
        """The fields that are known, in the shape that the API answers."""
        known: dict[str, object] = {"code": self.code, "message": self.message}
        for name in ("file", "line", "element", "attribute", "value", "expected"):
            fact = getattr(self, name)
            if fact or (name == "value" and fact is not None):
                known[name] = fact
        if self.others:
            known["others"] = [other.message for other in self.others]
        return known


@dataclass(frozen=True, slots=True)
class ConfigWarning:
    """What is accepted without effect, or is valid and probably not meant."""

    code: str
    reason: str
    file: str = ""
    line: int = 0
    element: str = ""
    attribute: str = ""
    value: str | None = None

    @property
    def message(self) -> str:
        """One sentence, built like that of an error."""
        parts = (place(self.file, self.line), subject(self.element, self.attribute, self.value), self.reason)
        return ": ".join(part for part in parts if part)

    def __str__(self) -> str:
        return self.message


@dataclass(slots=True)
class Problems:
    """Collects what is wrong with one file, to tell it all at once."""

    file: str
    errors: list[ConfigError] = field(default_factory=list)
    warnings: list[ConfigWarning] = field(default_factory=list)

    def error(
        self,
        code: str,
        reason: str,
        *,
        line: int = 0,
        element: str = "",
        attribute: str = "",
        value: str | None = None,
        expected: str = "",
    ) -> None:
        """Notes one error; of several about one written value, the first."""
        if attribute and any(
            (error.line, error.element, error.attribute, error.value) == (line, element, attribute, value)
            for error in self.errors
        ):
            return
        self.errors.append(
            ConfigError(
                code,
                reason,
                file=self.file,
                line=line,
                element=element,
                attribute=attribute,
                value=value,
                expected=expected,
            )
        )

    def warn(
        self, code: str, reason: str, *, line: int = 0, element: str = "", attribute: str = "", value: str | None = None
    ) -> None:
        """Notes one warning."""
        self.warnings.append(ConfigWarning(code, reason, self.file, line, element, attribute, value))

    def settle(self) -> None:
        """Raises the first error, in the order of the file, with the others beside it; nothing when there is none."""
        if not self.errors:
            return
        first, *others = sorted(self.errors, key=lambda error: error.line)
        raise ConfigError(
            first.code,
            first.reason,
            file=first.file,
            line=first.line,
            element=first.element,
            attribute=first.attribute,
            value=first.value,
            expected=first.expected,
            others=others,
        )
