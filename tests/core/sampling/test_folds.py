"""Folds of images, and to whom an ensemble listens."""

import pytest

from uncertainty_core.errors import UserError
from uncertainty_core.sampling.folds import fold_of, held_out, read_held_out, write_held_out


def test_the_fold_of_an_image_depends_on_its_name_alone():
    # BLAKE2b of ["fold", "a/0.png"], as `derive_seed` has it: the same on every machine
    folds = [fold_of(f"a/{number}.png", 4) for number in range(400)]
    assert folds[:6] == [2, 2, 3, 0, 0, 0]
    assert all(70 < folds.count(fold) < 130 for fold in range(4))


def test_each_image_is_held_out_of_one_fold():
    images = [f"a/{number}.png" for number in range(40)]
    folds = [held_out(images, fold, 3) for fold in range(3)]
    assert all(sum(of_image) == 1 for of_image in zip(*folds, strict=True))
    with pytest.raises(UserError, match="2 images are too few for 3 folds: 2 of them are empty"):
        held_out(images[:2], 0, 3)
    for fold, number in ((5, 5), (0, 1), (0, 0), (-1, 3)):
        with pytest.raises(UserError, match=f"got {fold} of {number}"):
            held_out(images, fold, number)


def test_members_of_some_folds_alone_are_refused(tmp_path):
    """They have all seen the images of the other folds."""
    images = [f"a/{number}.png" for number in range(40)]
    for number, fold in enumerate((0, 0, 1, 1)):
        (tmp_path / f"member_{number}").mkdir()
        left_out = [image for image, out in zip(images, held_out(images, fold, 3), strict=True) if out]
        write_held_out(tmp_path / f"member_{number}", left_out, 3)
    with pytest.raises(UserError, match="seen the images of 1 of 3 folds: name members of every fold"):
        read_held_out([str(tmp_path / f"member_{number}" / "iter_2.pth") for number in range(4)])


def test_whom_a_teacher_asks_is_read_beside_the_checkpoints(tmp_path):
    paths = [str(tmp_path / f"member_{number}" / "iter_2.pth") for number in range(4)]
    for number, images in enumerate([["a/0.png"], ["a/1.png"], ["a/0.png"], ["a/1.png"]]):
        (tmp_path / f"member_{number}").mkdir()
        write_held_out(tmp_path / f"member_{number}", images, 1)
    assert read_held_out(paths) == {"a/0.png": [0, 2], "a/1.png": [1, 3]}
    with pytest.raises(UserError, match=r"only .*member_1/iter_2.pth has never seen a/1.png: two members are needed"):
        read_held_out(paths[:3])
    (tmp_path / "member_3" / "held_out.json").unlink()
    with pytest.raises(UserError, match=r"there is no .*member_3/held_out.json, so .* train members with --folds"):
        read_held_out(paths)
