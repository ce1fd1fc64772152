"""Detectron2's own flags and this project's, declared and checked without importing Detectron2."""

import argparse
import json
import os
from pathlib import Path

from ..errors import UserError
from .configs import TrustError, check_config, find_config, package_folder
from .program import add_common_flags

# Data sets of one's own, and the key that each replaces; the test set, if there is one, is evaluated instead of val.
OWN = "custom_"  # what the names of data sets on the command line begin with
SPLITS = {"train": "TRAIN", "val": "TEST", "test": "TEST"}
QUICK_JSON = 20_000_000  # bytes; to parse more takes longer than to import a framework, which parses it anyway


def detector_parser(description: str, *, processes: bool = True) -> argparse.ArgumentParser:
    """Detectron2's own flags, plus --ddn and data sets of one's own; those for several processes on demand."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="a file, or a name in configs/ddn/ or the zoo"
    )
    parser.add_argument(
        "--ddn", action="store_true", help="turn the config into its distilled form, with a schedule of fine-tuning"
    )
    parser.add_argument(
        "--trust-config", action="store_true", help="let YAML configs run code and be built on downloads"
    )
    for split in SPLITS:
        parser.add_argument(f"--{split}-json", metavar="FILE", help=f"{split} set: annotations in COCO's format")
        parser.add_argument(f"--{split}-images", metavar="DIR", help=f"folder of its images; known as {OWN}{split}")
    if processes:
        parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="GPUs of this machine (default: 1)")
        parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="machines in all (default: 1)")
        parser.add_argument("--machine-rank", type=int, default=0, metavar="K", help="number of this machine, from 0")
        parser.add_argument("--dist-url", default=_local_url(), metavar="URL", help="where the processes meet")
    add_common_flags(parser)
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="values of the config, behind all flags; key=value for a LazyConfig",
    )
    return parser


def _local_url() -> str:
    """The same port for all processes of a user, as Detectron2 has it: those that a crash left behind are noticed."""
    user = os.getuid() if hasattr(os, "getuid") else 1
    return f"tcp://127.0.0.1:{2**15 + 2**14 + user % 2**14}"


def add_unlabelled(parser: argparse.ArgumentParser) -> None:
    """Flags of a data set without labels."""
    parser.add_argument(
        "--unlabelled-images",
        metavar="DIR",
        help=f"images without labels, of which students learn from the teacher alone; known as {OWN}unlabelled",
    )
    parser.add_argument(
        "--unlabelled-json", metavar="FILE", help="take only those that this COCO file names; its labels are not read"
    )


def check_detectron2() -> Path:
    """The folder of Detectron2; UserError without it."""
    folder = package_folder("detectron2")
    if folder is None:
        raise UserError("Detectron2 is not installed, and no package index has it: see README, 'Installing Detectron2'")
    return folder


def is_lazy(name: str | Path) -> bool:
    """Whether the config of a detector is a LazyConfig, a program, and not YAML."""
    return Path(name).suffix == ".py"


def check_detector_arguments(args: argparse.Namespace, *more_configs: str, lazy: bool = False) -> None:
    """Raise UserError for a mistake in the command line that can be seen without Detectron2.

    Args:
        args: of `detector_parser`.
        more_configs: names of further configs that the command line mentions.
        lazy: whether the program takes LazyConfigs as well.
    """
    detectron2 = check_detectron2()
    for name in (args.config_file, *more_configs):
        path = find_detector_config(name)
        # some of the zoo compute with tags, and Detectron2 itself is trusted
        if is_lazy(path):
            check_config(path, "lazy" if lazy else "ddn")
        elif detectron2 not in path.parents:
            try:
                check_config(path, "ddn")
            except TrustError as error:
                if not args.trust_config:
                    raise UserError(f"{error}; --trust-config lets it") from None
    for split in SPLITS:
        annotations, images = getattr(args, f"{split}_json"), getattr(args, f"{split}_images")
        if (annotations is None) != (images is None):
            raise UserError(f"--{split}-json and --{split}-images go together")
        if annotations is not None:
            _check_json(Path(annotations))
            if not Path(images).is_dir():
                raise UserError(f"--{split}-images: there is no folder {images}")
    unlabelled = getattr(args, "unlabelled_images", None)
    if unlabelled is None and getattr(args, "unlabelled_json", None) is not None:
        raise UserError("--unlabelled-json needs --unlabelled-images, the folder of the images that it names")
    if unlabelled is not None and not Path(unlabelled).is_dir():
        raise UserError(f"--unlabelled-images: there is no folder {unlabelled}")
    misplaced = [word for word in args.opts if word.startswith("--")]
    if misplaced:
        raise UserError(f"{misplaced[0]} must stand before the values of the config, which begin with {args.opts[0]}")
    options, key = _options(args), "train.init_checkpoint" if is_lazy(args.config_file) else "MODEL.WEIGHTS"
    weights = options.get(key, "")
    # a training that goes on has weights of its own
    if weights and "://" not in weights and not getattr(args, "resume", False) and not Path(weights).is_file():
        raise UserError(f"{key}: there is no file {weights}")


def _options(args: argparse.Namespace) -> dict[str, str]:
    """The values of the config at the end of the command line, as Detectron2 has them for each kind of config."""
    if is_lazy(args.config_file):
        if wrong := [word for word in args.opts if "=" not in word]:
            raise UserError(f"the values of a LazyConfig are given as key=value, got {wrong[0]}")
        return dict(word.split("=", 1) for word in args.opts)
    if len(args.opts) % 2:
        raise UserError(f"the values of the config must come in pairs KEY VALUE, got {' '.join(args.opts)}")
    return dict(zip(args.opts[::2], args.opts[1::2], strict=True))


def find_detector_config(name: str) -> Path:
    """A path as it is, a name in configs/ddn/, or a name of Detectron2's model zoo."""
    detectron2 = package_folder("detectron2")
    return find_config(name, "ddn", detectron2 and detectron2 / "model_zoo" / "configs")


def _check_json(path: Path) -> None:
    if path.stat().st_size > QUICK_JSON:
        return
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
