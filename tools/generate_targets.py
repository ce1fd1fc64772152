"""Write what a teacher says about a training set, once, for many students to learn from.

Detection (the default): its logits for every ground-truth box.

    distilled-uncertainty generate-targets --config-file ddn_R50.yaml MODEL.DDN.TARGETS.STORE targets/coco
    distilled-uncertainty train-net --config-file ddn_R50.yaml MODEL.DDN.TARGETS.STORE targets/coco \\
        MODEL.DDN.TARGETS.SOURCE store

Segmentation: its uncertainty at every pixel of every image.

    distilled-uncertainty generate-targets --task segmentation \\
        deeplabv3plus_r18_cityscapes-768x768_teacher.py --store targets/cityscapes
    distilled-uncertainty train-seg deeplabv3plus_r18_cityscapes-768x768_student.py

The folder belongs to one teacher and one data set; another one is refused. A run that was killed goes on where it
stopped when it is started again, and ends with the same bytes, whatever the number of processes.
"""

import argparse
import sys
from collections.abc import Sequence

from uncertainty_core.cli import check_at_least, echo, parse_task, program
from uncertainty_core.cli.flags import check_detector_arguments, detector_parser
from uncertainty_core.cli.segmentor_flags import check_segmentor_arguments, segmentor_parser

TASKS = ("detection", "segmentation")


def build_parser(task: str = TASKS[0]) -> argparse.ArgumentParser:
    """The command line for one of the tasks."""
    parser = detection_parser() if task == "detection" else segmentation_parser()
    parser.add_argument("--task", choices=TASKS, default=task, help="what the teacher does (default: detection)")
    return parser


def add_shards(parser: argparse.ArgumentParser, size: int) -> None:
    """What both tasks know."""
    parser.add_argument(
        "--shard-size", type=int, default=size, help="images per file: what a kill can lose (default: %(default)s)"
    )


def detection_parser() -> argparse.ArgumentParser:
    """The flags of Detectron2's own tools."""
    parser = detector_parser(__doc__)
    add_shards(parser, 500)
    return parser


def write_in_process(args: argparse.Namespace) -> None:
    """Write the store of a detector, in one of several processes or alone."""
    from detectron2.modeling import build_model

    from ddn_detectron2.cli import setup
    from ddn_detectron2.config import ConfigError
    from ddn_detectron2.convert import is_ddn
    from ddn_detectron2.engine.trainer import build_with_teacher, training_dicts
    from ddn_detectron2.teaching.store import generate_targets

    cfg = setup(args)
    if not is_ddn(cfg):
        raise ConfigError("the config describes a plain detector: add --ddn, or take one of the ddn_* configs")
    if not cfg.MODEL.DDN.TARGETS.STORE:
        raise ConfigError("MODEL.DDN.TARGETS.STORE must name the folder to write")
    model, images = build_with_teacher(cfg, build_model(cfg)), training_dicts(cfg)
    echo(f"targets of {len(images)} images, {cfg.MODEL.DDN.TARGETS.STORE}")
    generate_targets(cfg, model, images, args.shard_size)


def write_for_detection(args: argparse.Namespace) -> None:
    """Write the store of a detector."""
    check_detector_arguments(args)
    from ddn_detectron2.cli import launch

    launch(write_in_process, args)


def segmentation_parser() -> argparse.ArgumentParser:
    """The arguments of mmsegmentation's own tools."""
    parser = segmentor_parser(__doc__)
    add_shards(parser, 50)
    parser.add_argument("--store", required=True, metavar="DIR", help="the folder to write, made if need be")
    parser.add_argument("--split", choices=("train", "val", "test"), default="train", help="default: %(default)s")
    parser.add_argument("--class-wise", action="store_true", help="the uncertainty of every class, for num_outputs > 1")
    parser.add_argument(
        "--outputs",
        nargs="+",
        default=("std",),
        choices=("std", "entropy", "mutual_information"),
        metavar="NAME",
        help="which uncertainties: std first, entropy, mutual_information (default: std)",
    )
    parser.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="also the K largest mean probabilities, for loss_distillation"
    )
    return parser


def write_for_segmentation(args: argparse.Namespace) -> None:
    """Write the store of a segmentor."""
    check_segmentor_arguments(args.config)
    from dudes_mmseg.cli import build_config
    from dudes_mmseg.engine.ranks import start_ranks
    from dudes_mmseg.targets.contents import Contents
    from dudes_mmseg.targets.generate import generate_targets

    cfg = build_config(args)
    start_ranks(args.launcher)
    contents = Contents(args.class_wise, tuple(args.outputs), args.top_k)
    generate_targets(cfg, args.store, args.split, contents, args.shard_size)
    echo(f"targets: {args.store}")


def main(argv: Sequence[str] | None = None) -> None:
    """Generate the targets."""
    parser, args = parse_task(sys.argv[1:] if argv is None else argv, TASKS, build_parser)
    check_at_least(parser, args, 1, "shard_size")
    if args.task == "segmentation":
        check_at_least(parser, args, 0, "top_k")
    with program(args):
        (write_for_segmentation if args.task == "segmentation" else write_for_detection)(args)


if __name__ == "__main__":
    main()
