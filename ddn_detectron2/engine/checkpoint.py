"""Checkpoints that can do nothing but hold weights, and that have to fit."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from uncertainty_core.io.checkpoints import DAMAGED, CheckpointError, damaged, other_shape
from uncertainty_core.io.files import open_atomically, write_text

# Whatever numpy arrays in a pickle of the model zoo are made of, under the old and the new name of numpy's module.
_NUMPY_PARTS = {
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _NUMPY_PARTS:
            raise pickle.UnpicklingError(f"it wants to run {module}.{name}")
        return super().find_class(module, name)


class SafeCheckpointer(DetectionCheckpointer):
    """`DetectionCheckpointer` that loads weights only, whoever made the file, and names what does not fit.

    Args:
        strict: a CheckpointError where the model has weights of another shape, or none at all, in the file.
        may_lack: part of the names of weights that a file may lack.
        notes: values that each saved file holds beside the weights; `load` returns them.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        strict: bool = False,
        may_lack: str | None = None,
        notes: dict[str, Any] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(model, save_dir, **kwargs)
        self.strict, self.may_lack, self.notes = strict, may_lack, notes or {}

    def save(self, name: str, **kwargs) -> None:
        """As `DetectionCheckpointer`, but the file is complete or absent, also after a kill or on a full disk."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: part.state_dict() for key, part in {"model": self.model, **self.checkpointables}.items()}
        path = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", path)
        try:
            with open_atomically(path) as file:
                torch.save(states | self.notes | kwargs, file)
            self.tag_last_checkpoint(path.name)
        except (OSError, RuntimeError) as error:  # the latter: of torch's writer
            raise CheckpointError(
                f"{path} cannot be written ({' '.join(str(error).split())}): is the disk full?"
            ) from None

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """As `DetectionCheckpointer`, atomically: training resumes from the file that this names."""
        write_text(Path(self.save_dir) / "last_checkpoint", last_filename_basename)

    def load(self, path, *args, **kwargs):
        """As `DetectionCheckpointer`."""
        try:
            return super().load(path, *args, **kwargs)
        except AssertionError as error:  # Detectron2's way to report a missing file
            raise CheckpointError(str(error)) from None
        except OSError as error:  # as all errors of the network are
            raise CheckpointError(
                f"{path} cannot be read or downloaded ({error}): get the file where there is a network, and name its "
                "place in its stead"
            ) from None
        except CheckpointError:
            raise
        except DAMAGED as error:  # found by Detectron2 in what the file holds
            raise damaged(path, error) from None

    def _load_file(self, filename):
        try:
            if filename.endswith(".pkl"):
                with open(filename, "rb") as file:
                    # checked first, then read by Detectron2, which knows the file's dialects
                    _ArraysOnly(io.BytesIO(file.read()), encoding="latin1").load()
            else:
                torch.load(filename, map_location="meta", weights_only=True)
            return super()._load_file(filename)
        except DAMAGED as error:
            raise damaged(filename, error) from None

    def _load_model(self, checkpoint):
        incompatible = super()._load_model(checkpoint)
        if self.strict:
            self._refuse_misfits(incompatible)
        return incompatible

    def _refuse_misfits(self, incompatible) -> None:
        for name, found, wanted in incompatible.incorrect_shapes:
            raise other_shape("the checkpoint", name, found, wanted)
        parameters = dict(self.model.named_parameters())  # buffers that old files lack are made from the config
        needed = {name for name in parameters if not (self.may_lack and self.may_lack in name)}
        missing = [name for name in incompatible.missing_keys if name in needed]
        broken = [name for name, values in parameters.items() if not values.isfinite().all()]
        if broken:
            raise CheckpointError(f"the checkpoint holds numbers that are not finite, the first of them in {broken[0]}")
        if missing:
            raise CheckpointError(
                f"the checkpoint does not fit the model: it lacks {len(missing)} of its {len(parameters)} weights, "
                f"among them {missing[0]}"
            )
