"""Targets on disk: a teacher's answer for every image, written once and read at random by many workers.

    targets/
        manifest.json             fingerprint of whatever makes the targets valid, and the image ids in order
        shard-00000.safetensors   tensors of `shard_size` consecutive images, named "<position>/<tensor>"
        shard-00000.sha256        its checksum, as `sha256sum -c` reads it; a shard without one does not exist
        ...

Every file is written beside its place and moved there when complete, and its content depends on nothing but the
arguments: a writer that was killed starts again at the next shard and ends with the same bytes. There is no pickle.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from ..checks import check_positive_int
from ..cli import console
from ..errors import UserError
from ..io.files import write_atomically
from ..io.strict_json import read_json
from .hashing import file_sha256

FORMAT = 1
ImageId = int | str


class TargetStoreError(UserError):
    """A store that must not be used as it is; the message is one sentence with the reason."""


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, allow_nan=False)


def _as_json(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """As it will be read back: tuples become lists, and what JSON cannot hold is refused."""
    try:
        return json.loads(_canonical(dict(fingerprint)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"fingerprint must hold JSON values: {error}") from None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.safetensors"


def _checksum_path(shard: Path) -> Path:
    return shard.with_suffix(".sha256")


def _checksum_line(shard: Path, sha256: str) -> str:
    return f"{sha256}  {shard.name}\n"


def _is_written(shard: Path) -> bool:
    """Whether there is a checksum, right or wrong."""
    path = _checksum_path(shard)
    return path.exists() and bool(path.read_bytes().strip())


def _is_intact(shard: Path) -> bool:
    """Whether the file has its checksum."""
    recorded = _checksum_path(shard).read_text(errors="replace")
    return recorded == _checksum_line(shard, file_sha256(shard))


def _shard_metadata(manifest_sha256: str, shard: int) -> dict[str, str]:
    # a single key, since safetensors writes several in random order
    return {"shard": f"{shard} of {manifest_sha256}"}


def _manifest(ids: Sequence[ImageId], fingerprint: Mapping[str, Any], shard_size: int) -> dict[str, Any]:
    content = {
        "format": FORMAT,
        "fingerprint": _as_json(fingerprint),
        "shard_size": shard_size,
        "ids": list(ids),
    }
    return content | {"sha256": _sha256(_canonical(content))}


def _is_sound(content: dict[str, Any]) -> bool:
    """Whether a manifest, if it is of this format, holds what its checksum cannot tell."""
    if content["format"] != FORMAT:
        return True
    if type(content["format"]) is not int:  # true, which equals 1
        return False
    ids, size = content["ids"], content["shard_size"]
    return (
        isinstance(content["fingerprint"], dict)
        and isinstance(ids, list)
        and all(type(i) in (int, str) for i in ids)
        and len(set(ids)) == len(ids)
        and type(size) is int
        and size >= 1
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        content = read_json((folder / "manifest.json").read_bytes())
        checksum = content.pop("sha256")
        intact = checksum == _sha256(_canonical(content)) and _is_sound(content)
    except OSError:
        raise TargetStoreError(f"{folder} is not a target store: it has no manifest.json") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        intact = False
    if not intact:
        raise TargetStoreError(f"{folder}/manifest.json is damaged: remove the store and generate the targets again")
    if content["format"] != FORMAT:
        raise TargetStoreError(f"{folder} has store format {content['format']}, this version reads format {FORMAT}")
    return content | {"sha256": checksum}


def _first_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first name whose value differs, both values beside it."""

    def show(values: Mapping[str, Any], name: str) -> str:
        return json.dumps(values[name]) if name in values else "absent"

    for name in sorted(found.keys() | wanted.keys()):
        if show(found, name) != show(wanted, name):
            return f"{name} {show(found, name)}, not {show(wanted, name)}"
    return None


def _refuse_foreign(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    difference = _first_difference(found["fingerprint"], wanted["fingerprint"])
    if difference is None and found["shard_size"] != wanted["shard_size"]:
        difference = f"shard_size {found['shard_size']}, not {wanted['shard_size']}"
    if difference is None and found["ids"] != wanted["ids"]:
        difference = f"other images ({len(found['ids'])}, not {len(wanted['ids'])}, or another order)"
    if difference is not None:
        raise TargetStoreError(f"{folder} holds other targets: they were made with {difference}")


def write_targets(
    folder: str | os.PathLike,
    ids: Sequence[ImageId],
    make: Callable[[list[ImageId]], Iterable[Mapping[str, Tensor]]],
    fingerprint: Mapping[str, Any],
    shard_size: int = 1000,
    rank: int = 0,
    world_size: int = 1,
    progress: bool = True,
) -> None:
    """Write the targets of all images, or go on where an earlier call was interrupted.

    Args:
        folder: the store; made if need be. One that holds other targets is refused.
        ids: all image ids, in an order that is always the same.
        make: given the ids of one shard, yields for each in turn its tensors by name. To be resumable it must be a
            function of the ids: key random draws with `derive_seed(seed, image_id, draw)`.
        fingerprint: JSON values of everything the targets depend on: weights' checksum, draws, rate, data set.
        shard_size: images per shard; what a kill can lose.
        rank, world_size: this process writes every world_size-th shard, starting from its rank.
        progress: show a bar over this rank's images.
    """
    folder = Path(folder)
    check_positive_int("shard_size", shard_size)
    if len(set(ids)) != len(ids):
        raise ValueError("ids must be unique")
    if bad := [i for i in ids if not isinstance(i, (int, str)) or isinstance(i, bool)]:
        raise ValueError(f"ids must be int or str, got {bad[0]!r}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in [0, world_size), got rank {rank} of {world_size}")

    manifest = _manifest(ids, fingerprint, shard_size)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "manifest.json").exists():
        _refuse_foreign(folder, _read_manifest(folder), manifest)
    elif rank == 0:
        text = json.dumps(manifest, sort_keys=True, indent=1) + "\n"
        write_atomically(folder / "manifest.json", text.encode())

    shards = {
        shard: list(ids[shard * shard_size : (shard + 1) * shard_size])
        for shard in range(rank, -(-len(ids) // shard_size), world_size)
    }
    pending = {shard: part for shard, part in shards.items() if not _is_finished(folder, shard, manifest["sha256"])}
    total, left = (sum(map(len, parts.values())) for parts in (shards, pending))
    with console.progress(total, "targets", "image", initial=total - left, shown=progress) as bar:
        for shard, part in pending.items():
            _write_shard(folder, shard, part, make, manifest["sha256"], bar)


def _is_finished(folder: Path, shard: int, manifest_sha256: str) -> bool:
    path = _shard_path(folder, shard)
    try:
        if not _is_intact(path):
            return False
        with safe_open(path, framework="pt") as file:
            return file.metadata() == _shard_metadata(manifest_sha256, shard)
    except (OSError, SafetensorError):
        return False


def _write_shard(
    folder: Path,
    shard: int,
    ids: list[ImageId],
    make: Callable[[list[ImageId]], Iterable[Mapping[str, Tensor]]],
    manifest_sha256: str,
    bar: tqdm,
) -> None:
    tensors: dict[str, Tensor] = {}
    count = 0
    for position, target in enumerate(make(list(ids))):
        count += 1
        if count > len(ids):
            break
        # a copy: views of one batch would each be stored with the whole of it, or refused
        tensors |= {f"{position}/{name}": tensor.detach().cpu().clone().contiguous() for name, tensor in target.items()}
        bar.update()
    if count != len(ids):
        raise ValueError(f"make must yield one target per image: {count} for {len(ids)} images")
    path = _shard_path(folder, shard)
    _checksum_path(path).unlink(missing_ok=True)  # of a damaged predecessor
    # not safetensors' save_file, which leaves a randomly named file behind when it is killed
    content = save(tensors, metadata=_shard_metadata(manifest_sha256, shard))
    write_atomically(path, content)
    write_atomically(_checksum_path(path), _checksum_line(path, hashlib.sha256(content).hexdigest()).encode())


class TargetStore(Mapping[ImageId, dict[str, Tensor]]):
    """Reads a finished store: `store[image_id]` is that image's tensors by name.

    A shard is checked when it is first touched, in pieces, and then mapped into memory, not loaded: workers share its
    pages. Copies sent to other processes open their own files.

    Args:
        folder: what `write_targets` wrote.
        fingerprint: what the targets must have been made with; None to take them as they are.
    """

    def __init__(self, folder: str | os.PathLike, fingerprint: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        manifest = _read_manifest(self.folder)
        self.fingerprint: dict[str, Any] = manifest["fingerprint"]
        self.shard_size: int = manifest["shard_size"]
        self.ids: list[ImageId] = manifest["ids"]
        self._manifest_sha256: str = manifest["sha256"]
        if fingerprint is not None:
            difference = _first_difference(self.fingerprint, _as_json(fingerprint))
            if difference is not None:
                raise TargetStoreError(f"{self.folder} is stale: its targets were made with {difference}")
        self._position = {image_id: position for position, image_id in enumerate(self.ids)}
        self._open_shards: dict[int, tuple[Any, dict[int, list[str]]]] = {}
        shards = [_shard_path(self.folder, shard) for shard in range(self.num_shards)]
        missing = [shard for shard in shards if not _is_written(shard)]
        if missing:
            raise TargetStoreError(
                f"{self.folder} is unfinished: {len(missing)} of {self.num_shards} shards are missing, "
                "run the same generation again to complete it"
            )

    @property
    def num_shards(self) -> int:
        """How many files the images are spread over."""
        return -(-len(self.ids) // self.shard_size)

    def __getitem__(self, image_id: ImageId) -> dict[str, Tensor]:
        shard, position = divmod(self._position[image_id], self.shard_size)
        file, names = self._open(shard)
        # copies, since the tensors of safetensors are views of the file's pages that all reads share
        return {name: file.get_tensor(f"{position}/{name}").clone() for name in names.get(position, ())}

    def __iter__(self) -> Iterator[ImageId]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._position

    def verify(self, progress: bool = False) -> None:
        """Check every shard now rather than when it is first touched."""
        for shard in console.track(range(self.num_shards), "verify", "shard", progress):
            self._open(shard)

    def _open(self, shard: int) -> tuple[Any, dict[int, list[str]]]:
        if shard not in self._open_shards:
            path = _shard_path(self.folder, shard)
            try:
                if not _is_intact(path):
                    raise TargetStoreError(
                        f"{path} is damaged, its checksum does not match: run the same generation again to replace it"
                    )
                file = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise TargetStoreError(f"{path} cannot be read: {error}") from error
            if file.metadata() != _shard_metadata(self._manifest_sha256, shard):
                raise TargetStoreError(f"{path} belongs to another store, or to another place in this one")
            names: dict[int, list[str]] = {}
            for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                position, slash, name = key.partition("/")
                if not (slash and position.isascii() and position.isdecimal() and key == f"{int(position)}/{name}"):
                    raise TargetStoreError(f"{path} holds {key!r}, which is no tensor of an image")
                names.setdefault(int(position), []).append(name)
            self._open_shards[shard] = file, names
        return self._open_shards[shard]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open_shards": {}}
