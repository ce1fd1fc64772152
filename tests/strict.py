"""JSON as the standard has it."""

import json


def strictly(text):
    """Parse JSON, refusing the NaN and Infinity that Python's parser would let pass."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)
