"""Make an environment with everything this project was tested with. Standard library only; `make` calls it.

    python3 requirements/bootstrap.py --venv .venv --stamp .venv/.ready

Running it again after an interruption repairs what was left half done. An environment that already holds a
Detectron2 keeps it, and its torch with it: then the project is installed by setup.py's ranges, not from the lock.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent
ROOT = REQUIREMENTS.parent
REGISTRY_NAME = "detectron2-cdo"
ENV_MODULE = "detectron2_registry_env"

# Runs inside the environment: what Detectron2 is there, and where it came from.
PROBE = """
import importlib.metadata as metadata, importlib.util, json, sysconfig
spec = importlib.util.find_spec("detectron2")
found = {"site": sysconfig.get_paths()["purelib"], "path": spec and spec.origin}
for name in ("detectron2", "detectron2-cdo"):
    try:
        dist = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        continue
    found["name"], found["version"] = name, dist.version
    found["origin"] = json.loads(dist.read_text("direct_url.json") or "{}").get("url")
    break
print(json.dumps(found))
"""


def run(*command, **environment):
    """Run a command in the checkout, with variables added to the environment; CalledProcessError if it fails."""
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, env={**os.environ, **environment})


def works(*command):
    """Whether a command exists and succeeds."""
    try:
        return subprocess.run([str(part) for part in command], capture_output=True).returncode == 0
    except OSError:
        return False


def venv_python(venv):
    """The interpreter of an environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def create(venv):
    """A virtual environment with a working uv; an existing one is kept unless it cannot be made to work."""
    python = venv_python(venv)
    if works(python, "-m", "uv", "--version"):
        return
    if not works(python, "-m", "pip", "--version"):
        repaired = works(python, "-m", "ensurepip") and works(python, "-m", "pip", "--version")
        if not repaired:
            run(sys.executable, "-m", "venv", "--clear", venv)
    # --ignore-installed: an interrupted installation may look finished
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--ignore-installed", "uv")


def probe(python):
    """What PROBE finds out about the environment of an interpreter."""
    return json.loads(subprocess.run([str(python), "-c", PROBE], check=True, capture_output=True, text=True).stdout)


def install_registry_detectron2(uv, python):
    """Install the package index's Detectron2 and what lets it run; `uv` is the command that installs."""
    # the cfg lets the sdist build without its missing C++ sources; it must not be active for any other build
    run(
        *(*uv, "--reinstall", "--no-deps", "--no-build-isolation", "--require-hashes"),
        *("-r", REQUIREMENTS / "detectron2.txt"),
        DIST_EXTRA_CONFIG=str(REQUIREMENTS / "detectron2.cfg"),
    )
    # Detectron2's own hook for an environment module, switched on for whatever runs in this environment
    site = Path(probe(python)["site"])
    shutil.copyfile(REQUIREMENTS / "detectron2_env.py", site / f"{ENV_MODULE}.py")
    hook = f'import os; os.environ.setdefault("DETECTRON2_ENV_MODULE", "{ENV_MODULE}")\n'
    (site / f"{ENV_MODULE}.pth").write_text(hook)


def build_parser():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="the environment to make or complete")
    parser.add_argument("--stamp", type=Path, required=True, help="file written once all is done")
    return parser


def main(argv=None):
    """Make or complete the environment; a command that fails, or SIGINT, ends it with a sentence."""
    args = build_parser().parse_args(argv)
    try:
        set_up(args.venv.absolute(), args.stamp)
    except subprocess.CalledProcessError as error:
        sys.exit(f"set-up stopped at: {' '.join(error.cmd)}\nMend what it says above and run the same command again.")
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)


def set_up(venv, stamp):
    """Make or complete the environment in `venv`, then touch `stamp`."""
    if sys.version_info < (3, 10):  # noqa: UP036 (this script meets whatever Python is there)
        sys.exit(f"Python >= 3.10 is needed, this is {sys.version.split()[0]}: make PYTHON=/path/to/python3.10 ...")

    start = time.perf_counter()
    print(f"Setting up {venv} (a few minutes at most; needs the package index, nothing else) ...", flush=True)
    create(venv)
    python = venv_python(venv)
    in_progress = venv / ".set-up-in-progress"
    # a killed installer can leave packages that look installed: install them all again
    repair = ["--reinstall"] if in_progress.exists() else []
    in_progress.touch()

    uv = (python, "-m", "uv", "pip", "install", "--quiet", "--python", python)
    before = probe(python)
    kept = before["path"] is not None and before.get("name") != REGISTRY_NAME
    if kept:
        run(*uv, "--editable", f"{ROOT}[detection,segmentation,dev]")
    else:
        run(*uv, *repair, "--require-hashes", "-r", REQUIREMENTS / "lock.txt")
        install_registry_detectron2(uv, python)
        run(*uv, "--no-deps", "--no-build-isolation", "--editable", ROOT)

    now = probe(python)
    origin = now.get("origin") or ("the package index, Python only" if not kept else Path(now["path"]).parent)
    print(f"Detectron2 {now.get('version', 'of unknown version')} ({origin}){', kept as it was' if kept else ''}")
    if not works(python, "-c", "import detectron2.modeling"):
        print("warning: this Detectron2 cannot be imported; was it built for another torch?", file=sys.stderr)

    for old in venv.glob(".ready-*"):
        old.unlink()
    stamp.touch()
    in_progress.unlink()
    print(f"Ready after {time.perf_counter() - start:.0f} s.", flush=True)


if __name__ == "__main__":
    main()
