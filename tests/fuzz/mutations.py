"""Damage to files, at random and again: the same generator makes the same damage.

Bytes are flipped, cut, doubled and lost; values of JSON and YAML are removed, doubled, wrapped, swapped and replaced by
such as no writer of the format would write.
"""

import copy
import json
import re

import yaml

# What a JSON value may be replaced by; the raw texts are more than Python's own writer can write.
RAW = {
    "<overflow>": "1e999",
    "<minus overflow>": "-1e999",
    "<huge>": "1" + "0" * 400,
    "<longer than Python reads>": "1" * 5000,
    "<deep>": "[" * 100_000 + "]" * 100_000,
    "<minus zero>": "-0.0",
}
ODD = (
    *(None, True, False, 0, 1, -1, 2, 0.5, 1.0, 1e-320, 1e308, -1e308, 2**31, 2**63, -(2**63), 2**64),
    *(float("nan"), float("inf"), float("-inf"), "", "1", "0.5", "nan", "NaN", "true", "é\u2028\x00", "../../x", "/x"),
    *([], [1], [[1]], {}, {"a": 1}, "x" * 1000, *RAW),
)
YAML_LINES = (
    "\n? [a, b]\n: 1\n",
    "\nx: &a [*a]\n",
    "\nx: !!python/object/apply:os.system ['false']\n",
    "\nx: !!python/name:os.system\n",
    "\nx: 2020-99-99\n",
    "\n%YAML 9.9\n---\n",
    "\n---\na: 1\n",
    "\nx: !!int z\n",
    "\nx: !!binary '*'\n",
    "\na: &a [0,0,0,0,0,0,0,0,0,0]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\n",
    "\nx: " + "[" * 2000 + "\n",
    "\nx: .nan\n",
    "\nx: 1e400\n",
)

_LOADER, _DUMPER = getattr(yaml, "CSafeLoader", yaml.SafeLoader), getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def damaged_bytes(content, random):
    """`content` with one piece of it flipped, cut, doubled, lost or replaced."""
    place, length = random.randrange(len(content) + 1), random.choice((1, 2, 8, 64))
    before, after = content[:place], content[place:]
    noise = random.choice((b"\xff", b"\xc3(", b"\x00", b"\xef\xbb\xbf", bytes(random.randrange(256) for _ in range(8))))
    return random.choice(
        (
            lambda: before,
            lambda: before + after[length:],
            lambda: before + after[:length] * 2 + after[length:],
            lambda: before + noise + after,
            lambda: before + noise + after[len(noise) :],
            lambda: before + bytes([after[0] ^ (1 << random.randrange(8))]) + after[1:] if after else b"",
        )
    )()


def damaged_json(content, random):
    """JSON with one to three odd values, or with a field that is there twice."""
    text = json.dumps(damaged_value(json.loads(content), random))
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    fields = list(re.finditer(r'("\w+": )(?:[\d.]+|"\w*")', text))
    if fields and random.random() < 0.1:
        field = random.choice(fields)
        text = f"{text[: field.end()]}, {field[1]}{json.dumps(random.choice((0, 0.25, 'a')))}{text[field.end() :]}"
    return text.encode()


def damaged_yaml(content, random):
    """YAML with one to three odd values, or with an odd line somewhere."""
    if random.random() < 0.3:
        lines = content.decode().splitlines(keepends=True)
        lines.insert(random.randrange(len(lines) + 1), random.choice(YAML_LINES))
        if random.random() < 0.3:
            lines.insert(random.randrange(len(lines) + 1), random.choice(lines))  # a key that is there twice
        return "".join(lines).encode()
    return yaml.dump(damaged_value(yaml.load(content, _LOADER), random), Dumper=_DUMPER, allow_unicode=True).encode()


def damaged_value(value, random):
    """A copy of nested lists and dicts with one to three places changed."""
    value = [copy.deepcopy(value)]  # so that the whole of it is at a place, too
    for _ in range(random.choice((1, 1, 2, 3))):
        places = list(_places(value))
        parent, key = random.choice(places)
        change = random.choice(("odd", "odd", "odd", "remove", "double", "wrap", "swap"))
        if change == "odd":
            parent[key] = copy.deepcopy(random.choice(ODD))
        elif change == "remove" and parent is not value:
            del parent[key]
        elif change == "double" and isinstance(parent, list) and parent is not value:
            parent.insert(key, copy.deepcopy(parent[key]))
        elif change == "wrap":
            parent[key] = random.choice(([parent[key]], {"x": parent[key]}))
        else:
            other, there = random.choice(places)
            if there in other if isinstance(other, dict) else there < len(other):
                parent[key] = copy.deepcopy(other[there])
    return value[0]


def _places(value):
    """Each container and key in it, below `value`."""
    for key, child in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(child, dict | list):
            yield from _places(child)
