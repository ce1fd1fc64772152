"""Members in processes of their own: what stands in for them sleeps, or fails."""

import os
import time
from argparse import Namespace

import pytest
from forked_tools import run
from mmengine.config import Config

from dudes_mmseg.engine.members import train_members_on
from uncertainty_core.cli import program
from uncertainty_core.errors import UserError

FAIL = "import sys; number = int(sys.argv[2]); print('member', number); sys.exit(number % 2)"
SLEEP = "import os, signal, time; print(os.getpid(), flush=True); os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"


@pytest.fixture
def cfg(tmp_path):
    return Config({"work_dir": str(tmp_path), "train_cfg": {"max_iters": 4}})


def test_each_member_has_its_log_and_failed_ones_are_named(cfg, tmp_path, capfd):
    with pytest.raises(UserError, match=rf"^2 members failed, see {tmp_path}/member_1/log.txt, .*3/log.txt; the same"):
        train_members_on(["0", "1"], cfg, range(4), ["-c", FAIL])
    assert [(tmp_path / f"member_{n}" / "log.txt").read_text() for n in range(4)] == [f"member {n}\n" for n in range(4)]
    assert capfd.readouterr() == ("4 members on 2 GPUs: 4 iterations each\n", "")


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_sigint_ends_the_members_too(cfg, tmp_path):
    def interrupted():
        with program(Namespace(verbose=False)):
            train_members_on(["0"], cfg, range(2), ["-c", SLEEP])

    start = time.monotonic()
    done = run(interrupted, folder=tmp_path)
    assert (done.code, done.err) == (130, "interrupted; the same command goes on\n")
    assert not is_running(int((tmp_path / "member_0" / "log.txt").read_text()))
    assert time.monotonic() - start < 30 and not (tmp_path / "member_1").exists()
