"""Command lines that end before anything heavy is imported, in one process that has none of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torchmetrics", "torchvision", "detectron2", "mmengine", "mmseg", "matplotlib")
DRIVER = """
import json, os, runpy, sys, traceback

answers, (heavy, commands) = os.dup(1), json.load(sys.stdin)
for words in commands:
    for stream, name in ((1, "out.txt"), (2, "err.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    code = 0
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    said = {name: open(f"{name}.txt").read() for name in ("out", "err")}
    os.write(answers, json.dumps({"code": code, **said, "heavy": sorted(sys.modules.keys() & heavy)}).encode() + b"\\n")
"""


class Ending(NamedTuple):
    """Exit code, what was written to each stream, and which heavy packages have been imported so far."""

    code: int
    out: str
    err: str
    heavy: list[str]


def endings(commands, folder, heavy=HEAVY):
    """How each of the commands ends, lists of words after `python`, in `folder`."""
    words = json.dumps([heavy, [[str(word) for word in command] for command in commands]])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=words,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    return [Ending(**json.loads(line)) for line in done.stdout.splitlines()]
