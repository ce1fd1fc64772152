"""Tiny experiments on the digits, and processes that run them.

Run as a script this file is a server that has paid for `import torch` once and forks a process per order it reads; the
tests kill those, or let two of them work together.
"""

import contextlib
import copy
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
import warnings
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
    "evaluation": {"mc_samples": [3], "mc_students": 2, "repetitions": 2, "ood": "digits", "corruptions": "noise"},
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


def command(*arguments):
    """`python -m classification <arguments>`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    before, code = sys.argv, 0
    sys.argv = ["classification", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_module("classification", run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
    return Outcome(code or 0, out.getvalue(), err.getvalue())


def tree(folder):
    """Every file under `folder` with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


class Server:
    """Starts commands in processes of their own; an order names the environment and perhaps a place to die at."""

    def __init__(self):
        self.process = None

    def start(self, *arguments, env=None, die=None, err):
        """A process that runs a command and writes what it says to the file `err`; its number."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        order = {"arguments": [*map(str, arguments)], "env": env or {}, "die": die, "err": str(err)}
        return self._ask(order)

    def wait(self, pid):
        """The exit status of a process that was started, -9 if it was killed."""
        return self._ask({"wait": pid})

    def _ask(self, order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        """Stop the server."""
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait(30)


def rank_environments(count=2):
    """What torchrun sets, for each of its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


# --- the server's side


def _die_at(name, when):
    """Kill this process right before or right after something called `name` gets its place."""
    replace = os.replace

    def deadly(source, place):
        if Path(place).name == name and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, place)
        if Path(place).name == name:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = deadly


def _obey(order):
    file = os.open(order["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(order["env"])
    if order["die"]:
        _die_at(*order["die"])
    outcome = command(*order["arguments"])
    os.write(2, (outcome.out + outcome.err).encode())
    return outcome.code


def _serve():
    import torch

    warnings.simplefilter("ignore", RuntimeWarning)  # of runpy, that the module is imported already
    import classification.__main__  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        elif (answer := os.fork()) == 0:
            code = 1
            try:
                signal.alarm(120)  # whatever happens, no process is left behind
                code = _obey(order)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            os._exit(code)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
