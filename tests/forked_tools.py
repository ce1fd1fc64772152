"""The command-line tools, each run in a forked process, which has paid for its imports already and may be killed."""

import faulthandler
import functools
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import NamedTuple

import torch.utils.cpp_extension
import torch.utils.tensorboard  # noqa: F401 (both what trainings of all frameworks import late)
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
KILLED = -signal.SIGKILL
COMPUTES = "device cpu, 1 processor thread (--threads)"  # the first line of a tool that runs a network


class Outcome(NamedTuple):
    """Exit code, negative for a signal, and what was written to each stream."""

    code: int
    out: str
    err: str


def fork(function, *arguments, folder):
    """A process that runs `function` in `folder` and writes what it says to files there."""

    def child():
        os.chdir(folder)
        for stream, name in ((1, "out.txt"), (2, "err.txt")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        # pytest has put objects of its own there
        sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which the background of a script ignores
        sys.settrace(None)  # what coverage would learn here is lost at os._exit
        faulthandler.dump_traceback_later(300, exit=True, file=sys.stderr)  # no process is left behind
        tqdm.set_lock(threading.RLock())  # not the parent's, which all share: one killed with it in hand stops them all
        code = 0
        try:
            function(*arguments)
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def wait(process, folder):
    """Its outcome."""
    process.join()
    return Outcome(process.exitcode, *((Path(folder) / name).read_text() for name in ("out.txt", "err.txt")))


def run(function, *arguments, folder):
    """`fork` and `wait`."""
    return wait(fork(function, *arguments, folder=folder), folder)


def tool(name, *arguments):
    """What `python tools/<name>.py <arguments>` does, in this process."""
    sys.argv = [f"tools/{name}.py", *map(str, arguments)]
    sys.path.insert(0, str(ROOT / "tools"))  # as Python does for the folder of a script
    runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")


def run_tool(name, *arguments, folder):
    """`python tools/<name>.py <arguments>` in `folder`."""
    return run(tool, name, *arguments, folder=folder)


def die_at_call(owner, name, number, die=lambda: os.kill(os.getpid(), signal.SIGKILL)):
    """Kill this process at a call of `owner.name`, the first one being number 1; never, if there are fewer."""
    original, count = getattr(owner, name), 0

    @functools.wraps(original)
    def deadly(*arguments, **options):
        nonlocal count
        count += 1
        if count == number:
            die()
        return original(*arguments, **options)

    setattr(owner, name, deadly)
