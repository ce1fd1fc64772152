"""JSON as the standard has it, which knows neither NaN nor infinity."""

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
