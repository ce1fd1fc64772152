"""Write what a teacher says about a training set, once, for many students to learn from.

Detection (the default): its logits for every ground-truth box.

    python tools/generate_targets.py --config-file ddn_R50.yaml MODEL.DDN.TARGETS.STORE targets/coco
    python tools/train_net.py --config-file ddn_R50.yaml MODEL.DDN.TARGETS.STORE targets/coco \\
        MODEL.DDN.TARGETS.SOURCE store

Segmentation: its uncertainty at every pixel of every image.

    python tools/generate_targets.py --task segmentation \\
        deeplabv3plus_r18_cityscapes-768x768_teacher.py --store targets/cityscapes
    python tools/train_seg.py deeplabv3plus_r18_cityscapes-768x768_student.py

The folder belongs to one teacher and one data set; another one is refused. A run that was killed goes on where it
stopped when it is started again, and ends with the same bytes, whatever the number of processes.
"""

import argparse
import sys

from uncertainty_core.cli.segmentor_flags import segmentor_parser

TASKS = ("detection", "segmentation")


def task_parser() -> argparse.ArgumentParser:
    """The one flag that decides which others there are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task", choices=TASKS)
    return parser


def with_shards(parser: argparse.ArgumentParser, size: int) -> argparse.ArgumentParser:
    """Add what both tasks know."""
    parser.add_argument("--task", choices=TASKS, default=TASKS[0], help="what the teacher does (default: %(default)s)")
    parser.add_argument(
        "--shard-size", type=int, default=size, help="images per file: what a kill can lose (default: %(default)s)"
    )
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line."""
    args = parser.parse_args()
    if args.shard_size < 1:
        parser.error(f"--shard-size must be at least 1, got {args.shard_size}")
    return args


def detection_parser() -> argparse.ArgumentParser:
    """The flags of Detectron2's own tools."""
    from ddn_detectron2.cli import argument_parser

    return with_shards(argument_parser(__doc__), 500)


def write_for_detection(args: argparse.Namespace) -> None:
    """Write the store, in one of several processes or alone."""
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
    model = build_with_teacher(cfg, build_model(cfg))
    generate_targets(cfg, model, training_dicts(cfg), args.shard_size)


def detection() -> None:
    """Generate the targets of detectors."""
    args = parse(detection_parser())
    from detectron2.engine import launch

    from uncertainty_core.errors import one_sentence_errors

    with one_sentence_errors():
        launch(write_for_detection, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,))


def segmentation_parser() -> argparse.ArgumentParser:
    """The arguments of mmsegmentation's own tools."""
    parser = with_shards(segmentor_parser(__doc__), 50)
    parser.add_argument("--store", required=True, metavar="DIR", help="the folder to write, made if need be")
    parser.add_argument("--split", choices=("train", "val", "test"), default="train", help="default: %(default)s")
    parser.add_argument("--class-wise", action="store_true", help="the uncertainty of every class, for num_outputs > 1")
    return parser


def segmentation() -> None:
    """Generate the targets of segmentors."""
    args = parse(segmentation_parser())
    from dudes_mmseg.cli import build_config
    from dudes_mmseg.engine.ranks import start_ranks
    from dudes_mmseg.targets.generate import generate_targets
    from uncertainty_core.errors import one_sentence_errors

    with one_sentence_errors():
        cfg = build_config(args)
        start_ranks(args.launcher)
        generate_targets(cfg, args.store, args.split, args.class_wise, args.shard_size)


def explain() -> None:
    """Print the help of every task whose framework is installed."""
    for task, parser in zip(TASKS, (detection_parser, segmentation_parser), strict=True):
        try:
            print(f"--task {task}\n\n{parser().format_help()}")
        except ImportError as error:
            print(f"--task {task} needs packages that are not installed: {error}\n")


if __name__ == "__main__":
    task = task_parser().parse_known_args()[0].task
    if task is None and {"-h", "--help"} & set(sys.argv[1:]):
        explain()
    elif task == "segmentation":
        segmentation()
    else:
        detection()
