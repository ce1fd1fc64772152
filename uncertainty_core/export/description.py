"""What the file of an exported network tells about itself."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version

from ..errors import UserError
from ..io.strict_json import strict_json

FORMAT = 1


@dataclass(frozen=True)
class Description:
    """The metadata of an exported network.

    task: "segmentation", "classification" or "detection".
    classes: names of the classes, in the order of their numbers.
    input: what the graph takes, in words.
    outputs: what each output is, by name, in words.
    weights_sha256: fingerprint of the weights, see `state_dict_sha256`.
    calibrators: what the files of those in the graph hold, by the name of what they map.
    versions: of the packages that wrote the file.
    """

    task: str
    classes: tuple[str, ...]
    input: str
    outputs: Mapping[str, str]
    weights_sha256: str
    calibrators: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """Text by name, as ONNX keeps it; other values are JSON."""
        values = {"format": FORMAT, **asdict(self)}
        return {name: value if isinstance(value, str) else strict_json(value) for name, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Description":
        """What `metadata` gave."""
        if metadata.get("format", "").strip() != str(FORMAT):
            raise UserError(f"the metadata are not those of an exported network, or of another format than {FORMAT}")
        texts = ("task", "input", "weights_sha256")
        values = {name: value if name in texts else json.loads(value) for name, value in metadata.items()}
        del values["format"]
        return cls(**values | {"classes": tuple(values["classes"])})


def versions_of(*packages: str) -> dict[str, str]:
    """The versions of those distributions that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
