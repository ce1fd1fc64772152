"""Train, distil, evaluate and report an experiment that a YAML file describes.

    distilled-uncertainty classification run --config quick/digits.yaml
    distilled-uncertainty classification train --config ... teacher.training.epochs=20
    distilled-uncertainty classification train --config ... teacher.training.epochs=20 --resume

Commands, each of which finds what the ones before it left behind:

    train     the teacher, once for each of its seeds
    targets   the cached targets of students that learn from a store
    distill   the students
    evaluate  baseline, Monte-Carlo dropout, ensemble and students on the test images
    report    one HTML page of all that
    run       all of these, one after the other

With several GPUs: torchrun --nproc-per-node=2 --no-python distilled-uncertainty classification run --config ...
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from uncertainty_core.cli import Steps, add_common_flags, echo, log_to, program
from uncertainty_core.cli.configs import check_config, find_config

from .config import Config, ConfigError, load_config

if TYPE_CHECKING:  # a mistake in a configuration is found without torch
    import torch

COMMANDS = ("train", "targets", "distill", "evaluate", "report", "run")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="distilled-uncertainty classification",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--config", required=True, help="YAML file, or the name of one in configs/classification/")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted training stopped")
    parser.add_argument(
        "--overwrite", action="store_true", help="start over what other settings have made; measure all anew"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto for the GPU if there is one")
    parser.add_argument("--data-root", help="where data sets are; the same as data.root=...")
    parser.add_argument("--download", action="store_true", help="fetch a missing data set")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example teacher.training.epochs=3")
    add_common_flags(parser)
    return parser


def usable_device(name: str) -> "torch.device":
    """The device called `name`, after a try; of several GPUs the one that is this process's."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        raise ConfigError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def run(args: argparse.Namespace, config: Config) -> None:
    """Run the command, in one of several processes or alone."""
    from .distributed import barrier, process_group, rank
    from .evaluate import evaluate
    from .experiment import Experiment, num_steps
    from .report import write_report

    chosen = [name for name in COMMANDS if name not in ("targets", "run")] if args.command == "run" else [args.command]
    step = Steps(num_steps(config, chosen))
    with process_group():
        device = usable_device(args.device)
        experiment = Experiment(config, device, args.download, args.resume, args.overwrite, step)
        steps = {
            "train": experiment.train,
            "targets": experiment.write_targets,
            "distill": experiment.distill,
            "evaluate": lambda: evaluate(experiment) if rank() == 0 else None,
            "report": lambda: write_report(experiment) if rank() == 0 else None,
        }
        experiment.check(chosen)
        log_to(config.folder / "log.txt")
        echo(experiment.summary())
        for name in chosen:
            steps[name]()
            barrier()


def main(argv: Sequence[str] | None = None) -> None:
    """Read the configuration, then run the command."""
    args = build_parser().parse_intermixed_args(argv)
    with program(args):
        path = find_config(args.config, "classification")
        check_config(path, "classification")
        overrides = args.overrides + ([f"data.root={args.data_root}"] if args.data_root else [])
        run(args, load_config(path, overrides))


if __name__ == "__main__":
    main()
