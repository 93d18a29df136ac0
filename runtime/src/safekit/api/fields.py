"""What a request says, read field by field: a wrong value is refused with its name, an unknown field too."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from starlette.requests import Request

from safekit.api.face import FaceError

BODY_LIMIT = 64 * 1024 * 1024

Choice = TypeVar("Choice", bound=str)


def invalid(message: str) -> FaceError:
    """A request that cannot be understood."""
    return FaceError("request.invalid", message)


class Fields:
    """The fields of a JSON body or of a query. Each reader names the field; `finish` refuses what nobody read."""

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self._values = values
        self._where = where
        self._known: list[str] = []

    @classmethod
    def of_query(cls, request: Request) -> Fields:
        """The query of a request."""
        return cls(dict(request.query_params), "query")

    @classmethod
    async def of_body(cls, request: Request) -> Fields:
        """The JSON object in the body of a request, at most `BODY_LIMIT` bytes; no body is an empty object."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_LIMIT:
                raise FaceError("request.too_large", f"the body is larger than {BODY_LIMIT // 1024 // 1024} MiB")
        try:
            values = json.loads(body) if body else {}
        except (ValueError, RecursionError) as trouble:
            raise invalid(f"the body is no JSON: {trouble}") from None
        if not isinstance(values, dict):
            raise invalid("the body is no JSON object")
        return cls(values, "body")

    def text(self, name: str) -> str:
        """A string that must be there."""
        value = self.optional_text(name)
        if value is None:
            raise invalid(f"{self._where}: {name} is missing, expected a string")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, None if it is null or not there."""
        value = self._take(name)
        if value is not None and not isinstance(value, str):
            raise self._wrong(name, value, "a string")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings, which must be there."""
        value = self._take(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, value, "a list of strings")
        return tuple(value)

    def choice(self, name: str, choices: Sequence[Choice]) -> Choice:
        """One of a few words, which must be there."""
        value = self.optional_choice(name, choices)
        if value is None:
            raise invalid(f"{self._where}: {name} is missing, expected one of {', '.join(choices)}")
        return value

    def optional_choice(self, name: str, choices: Sequence[Choice]) -> Choice | None:
        """One of a few words, None if it is null or not there."""
        value = self._take(name)
        for choice in choices:
            if value == choice:
                return choice
        if value is not None:
            raise self._wrong(name, value, f"one of {', '.join(choices)}")
        return None

    def flag(self, name: str) -> bool:
        """true or false, false if it is not there."""
        value = self._take(name)
        if value is None:
            return False
        if self._where == "query" and value in ("true", "false"):
            return value == "true"
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def number(self, name: str, default: float, lowest: float, highest: float) -> float:
        """A number within bounds."""
        value = self._take(name)
        if value is None:
            return default
        try:
            number = float(value) if self._where == "query" and isinstance(value, str) else value
        except ValueError:
            number = None
        if isinstance(number, bool) or not isinstance(number, int | float) or not lowest <= number <= highest:
            raise self._wrong(name, value, f"a number from {lowest:g} to {highest:g}")
        return number

    def optional_whole(self, name: str, lowest: int, highest: int) -> int | None:
        """A whole number within bounds, None if it is null or not there."""
        value = self._take(name)
        if value is None:
            return None
        try:
            number = int(value) if self._where == "query" and isinstance(value, str) else value
        except ValueError:
            number = None
        if isinstance(number, bool) or not isinstance(number, int) or not lowest <= number <= highest:
            raise self._wrong(name, value, f"a whole number from {lowest} to {highest}")
        return number

    def whole(self, name: str, default: int, lowest: int, highest: int) -> int:
        """A whole number within bounds."""
        number = self.optional_whole(name, lowest, highest)
        return default if number is None else number

    def optional_bytes(self, name: str) -> bytes | None:
        """Bytes in base64, None if they are null or not there."""
        value = self.optional_text(name)
        if value is None:
            return None
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise invalid(f"{self._where}: {name} is not base64") from None

    def optional_date(self, name: str) -> datetime | None:
        """A date with its zone, None if it is null or not there."""
        value = self.optional_text(name)
        if value is None:
            return None
        try:
            date = datetime.fromisoformat(value)
        except ValueError:
            date = None
        if date is None or date.tzinfo is None:
            raise self._wrong(name, value, "a date with its zone, for example 2026-11-22T08:00:00+00:00")
        return date

    def options(self, name: str) -> Fields:
        """An object within the object; empty if it is null or not there."""
        value = self._take(name)
        if value is None:
            return Fields({}, name)
        if not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        return Fields(value, name)

    def finish(self) -> None:
        """Refuse fields that nobody read."""
        unknown = [name for name in self._values if name not in self._known]
        if unknown:
            known = f"expected only {', '.join(self._known)}" if self._known else "expected no field"
            raise invalid(f"{self._where}: unknown field {unknown[0]!r}, {known}")

    def _take(self, name: str) -> object:
        self._known.append(name)
        return self._values.get(name)

    def _wrong(self, name: str, value: object, expected: str) -> FaceError:
        written = json.dumps(value, ensure_ascii=False)
        if len(written) > 80:
            written = written[:79] + "…"
        return invalid(f"{self._where}: {name} is {written}, expected {expected}")
