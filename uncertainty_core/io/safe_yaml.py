"""YAML that holds data alone, has one meaning, and is not larger than it looks."""

import re
from collections import Counter
from typing import Any

import yaml

_LARGEST = 100_000  # values, each alias counted as often as it stands for them
_DEEPEST = 100  # brackets


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML's readers take the last one or none, and too many brackets."""

    def fetch_flow_collection_start(self, token_class: type[yaml.Token]) -> None:
        if self.flow_level == _DEEPEST:  # PyYAML's time grows with the square of the depth
            raise ValueError("it is nested too deeply")
        super().fetch_flow_collection_start(token_class)

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        count = Counter(key.value for key in keys)
        for key in keys:
            if count[key.value] > 1:
                raise ValueError(f"{key.value} is there twice, {str(key.start_mark).strip()}")
        return super().construct_mapping(node, deep)


# numbers of YAML 1.2, of which PyYAML takes those without a point, such as 1e-3, for words
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def read_yaml_text(text: str) -> Any:
    """What the one document in `text` holds; ValueError or YAMLError if it is no YAML, or of more meanings.

    yaml.constructor.ConstructorError is raised for tags that would make anything else than data.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > _LARGEST:
            raise ValueError(f"its aliases stand for more than {_LARGEST:,} values")
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:  # PyYAML's for odd values
        raise ValueError(f"it holds a value that is none: {error}") from None
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """How many values a node stands for; ValueError where it stands for itself, too."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = None
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    size = known[id(node)]
    if size is None:
        raise ValueError("an alias stands for what it is in")
    return size
