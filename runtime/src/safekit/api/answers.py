"""How the values of the face, and its refusals, become JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime

from starlette.responses import Response

from safekit.api.face import FaceError
from safekit.config.errors import ConfigError


def plain(value: object) -> object:
    """A value in the types of JSON: dataclasses by field name, dates as ISO 8601 in UTC."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def answer(value: object, status: int = 200) -> Response:
    """An answer of the API."""
    body = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))
    return Response(body.encode(), status, media_type="application/json")


def refusal(error: FaceError | ConfigError) -> Response:
    """What went wrong, with a stable code, one sentence and every fact that is known."""
    if isinstance(error, ConfigError):
        return answer({"error": error.as_dict()}, 422)
    facts = {"code": error.code, "message": error.message, **error.facts}
    return answer({"error": facts}, error.http_status)
