"""Room on a disk."""

import pytest

from uncertainty_core.errors import UserError
from uncertainty_core.io.room import check_room


def test_a_disk_that_is_too_small(tmp_path):
    check_room(tmp_path / "absent", 1, written="*")
    with pytest.raises(UserError, match=r"absent needs 1,099,511,627,776.0 MiB, and .* MiB are free"):
        check_room(tmp_path / "absent", 2**60, written="*")
    (tmp_path / "written").write_bytes(bytes(10))
    check_room(tmp_path, 10, written="*")
