"""One tiny experiment that many tests look at."""

import shutil

import pytest
from experiments import command, write_config


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with tiny.yaml and, under out/tiny, all that train, distill and evaluate write. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    config = write_config(folder)
    for step in ("train", "distill", "evaluate"):
        outcome = command(step, "--config", config)
        assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """The same, to be changed."""
    shutil.copytree(finished / "out", tmp_path / "out")
    write_config(tmp_path)
    return tmp_path
