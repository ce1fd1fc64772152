"""Tiny experiments on the digits, and how to run them."""

import copy
import os
import runpy
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
SCHEDULE = {"epochs": 2, "batch_size": 8, "optimizer": "adam", "lr": 5.0e-3}
SMALL = {"name": "digits", "width": 0.5}
TINY = {
    "data": {"name": "digits", "limit": 200},
    "teacher": {"model": SMALL, "training": SCHEDULE, "seeds": [0, 1]},
    "students": {
        "DDN": {"model": SMALL, "training": SCHEDULE, "method": {"name": "ddn", "mc_samples": 3}},
        "distilled": {"model": SMALL, "training": SCHEDULE, "method": "dropout_distillation"},
        "KD": {"model": {"name": "digits", "width": 0.25}, "training": SCHEDULE, "method": "kd"},
    },
    "evaluation": {"mc_samples": [3], "mc_students": 2, "repetitions": 2, "calibrators": []},
}


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def write_config(folder, **sections):
    """The tiny experiment as a file, with these sections in place of its own; it writes under `folder`/out."""
    path = Path(folder) / "tiny.yaml"
    content = copy.deepcopy(TINY) | {"output": str(Path(folder) / "out")} | sections
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def run_classification(*arguments):
    """What `python -m classification <arguments>` does, in this process."""
    sys.argv = ["classification", *map(str, arguments)]
    runpy.run_module("classification", run_name="__main__")


def command(*arguments):
    """`run_classification`, with what it wrote and its exit code."""
    argv, streams, descriptors = sys.argv, (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    code = 0
    with tempfile.TemporaryFile("w+", buffering=1) as out, tempfile.TemporaryFile("w+", buffering=1) as err:
        for number, file in ((1, out), (2, err)):
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = out, err
        try:
            run_classification(*arguments)
        except SystemExit as stop:
            code = stop.code
        finally:
            sys.argv, (sys.stdout, sys.stderr) = argv, streams
            for number, before in zip((1, 2), descriptors, strict=True):
                os.dup2(before, number)
                os.close(before)
        said = [file.seek(0) or file.read() for file in (out, err)]
    return Outcome(code or 0, *said)


def tree(folder):
    """Every file under `folder` with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def rank_environments(count=2):
    """What torchrun sets, for each of its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def die_at_place(name, when):
    """Kill this process right before or right after something called `name` gets its place."""
    replace = os.replace

    def deadly(source, place):
        if Path(place).name == name and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, place)
        if Path(place).name == name:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = deadly
