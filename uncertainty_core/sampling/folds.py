"""Members that each leave a part of the training images out: only they can say how unsure one is of images never seen.

Which fold an image is in depends on its name alone, so it is the same in every order, selection and process.
"""

from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..io.files import write_text
from ..io.strict_json import read_json, strict_json
from .mc_dropout import derive_seed

HELD_OUT = "held_out.json"  # beside a member's checkpoint: the training images that it never saw


def image_key(path: str | Path) -> str:
    """What tells an image from others, wherever the data are: its name, and that of its folder."""
    return "/".join(Path(path).parts[-2:])


def fold_of(image: str, num_folds: int) -> int:
    """The fold of the image of this key, from 0 to `num_folds` - 1; other images have no part in it."""
    return derive_seed("fold", image) % num_folds


def held_out(images: Sequence[str], fold: int, num_folds: int) -> list[bool]:
    """Whether each of `images`, by their keys, is in this fold; UserError if one of the folds is empty."""
    if not 0 <= fold < num_folds or num_folds < 2:
        raise UserError(f"a fold must be one of 0 to K - 1, with K of at least 2, got {fold} of {num_folds}")
    folds = [fold_of(image, num_folds) for image in images]
    if missing := set(range(num_folds)) - set(folds):
        raise UserError(f"{len(images)} images are too few for {num_folds} folds: {len(missing)} of them are empty")
    return [found == fold for found in folds]


def write_held_out(folder: Path, images: Sequence[str], num_folds: int) -> None:
    """Note beside a member's checkpoint what it has never seen, for an ensemble that is asked out of fold."""
    write_text(folder / HELD_OUT, strict_json({"images": list(images), "folds": num_folds}))


def read_held_out(checkpoints: Sequence[str]) -> dict[str, list[int]]:
    """For each image that members were trained on, by its key, the numbers of those which never saw it.

    UserError where a member has no `HELD_OUT` beside its checkpoint, an image fewer than two who never saw it, or
    a fold no member that left it out.
    """
    judges: dict[str, list[int]] = {}
    num_folds = 0  # as in files of before, which do not know it
    for number, checkpoint in enumerate(checkpoints):
        path = Path(checkpoint).parent / HELD_OUT
        if not path.is_file():
            raise UserError(f"there is no {path}, so {checkpoint} has seen all images: train members with --folds")
        noted = read_json(path.read_bytes())
        num_folds = max(num_folds, noted.get("folds", 0))
        for image in dict.fromkeys(noted["images"]):
            judges.setdefault(image, []).append(number)
    folds = {fold_of(image, num_folds) for image in judges} if num_folds else set()
    if missing := set(range(num_folds)) - folds:
        raise UserError(
            f"all members have seen the images of {len(missing)} of {num_folds} folds: name members of every fold"
        )
    for image, numbers in judges.items():
        if len(numbers) < 2:
            raise UserError(f"only {checkpoints[numbers[0]]} has never seen {image}: two members are needed to differ")
    return judges
