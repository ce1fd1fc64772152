"""JSON as the standard has it, which knows neither NaN nor infinity, and in which no name is there twice."""

import json
import math
from typing import Any


def strict(content: Any) -> Any:
    """The same content with NaN and infinities as the words that `float` reads, and tuples as lists."""
    if isinstance(content, dict):
        return {key: strict(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [strict(value) for value in content]
    return str(content) if isinstance(content, float) and not math.isfinite(content) else content


def strict_json(content: Any) -> str:
    """Strict JSON with a line of its own for each entry, and a newline at its end."""
    return json.dumps(strict(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def read_json(content: str | bytes) -> Any:
    """What the text holds; ValueError if it is no JSON, nested too deeply, or of two meanings."""
    try:
        return json.loads(content, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of values of one name some readers take the first and others the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in content if names.count(name) > 1)!r} is there twice in one object")
    return content
