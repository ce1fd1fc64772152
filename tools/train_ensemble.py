"""Train the members of a deep ensemble: one config, one seed each.

Segmentation (the default):

    distilled-uncertainty train-ensemble quick/streets_member.py --members 4
    distilled-uncertainty train-ensemble deeplabv3plus_r18_cityscapes-768x768_member.py --members 10 --gpus 0 1 2 3
    distilled-uncertainty train-ensemble quick/streets_member.py --members 8 --folds 4

Detection: of a plain config whole detectors, of a ddn_* config box heads on the trunk of MODEL.WEIGHTS, which share its
proposals and cost little to train and to run.

    distilled-uncertainty train-ensemble --task detection --config-file baseline_R50_FPN.yaml OUTPUT_DIR ensemble
    distilled-uncertainty train-ensemble --task detection --config-file bccd/member_R18_FPN.yaml --members 5 \\
        MODEL.WEIGHTS baseline.pth OUTPUT_DIR ensemble

Member k trains in member_<k> of the work dir, or of OUTPUT_DIR, with seed k. Finished members are left as they are and
interrupted ones go on: start it again after a crash, or with more members.
"""

import argparse
import sys
from collections.abc import Sequence

from uncertainty_core.cli import Steps, check_at_least, echo, parse_task, program, silent
from uncertainty_core.cli.flags import check_detector_arguments, detector_parser
from uncertainty_core.cli.segmentor_flags import add_folds, check_folds, check_segmentor_arguments, segmentor_parser
from uncertainty_core.io.claims import check_claims
from uncertainty_core.io.room import check_room

TASKS = ("segmentation", "detection")


def build_parser(task: str = TASKS[0]) -> argparse.ArgumentParser:
    """The command line for one of the tasks."""
    parser = detector_parser(__doc__) if task == "detection" else segmentation_parser()
    parser.add_argument("--task", choices=TASKS, default=task, help="what members do (default: segmentation)")
    parser.add_argument("--members", type=int, default=10, metavar="N", help="how many (default: %(default)s)")
    add_folds(parser)
    parser.add_argument("--only", type=int, nargs="+", metavar="K", help="train these members alone")
    parser.add_argument("--overwrite", action="store_true", help="start over members that other settings have made")
    return parser


def segmentation_parser() -> argparse.ArgumentParser:
    """The flags of segmentors alone."""
    parser = segmentor_parser(__doc__)
    parser.add_argument("--gpus", nargs="+", metavar="ID", help="train one member per GPU at a time")
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    return parser


def train_segmentors(args: argparse.Namespace, words: Sequence[str]) -> None:
    """Train the members here, or each in a process of its own, started with `words`."""
    check_segmentor_arguments(args.config)
    from dudes_mmseg.cli import build_config
    from dudes_mmseg.engine.claims import WAY_OUT
    from dudes_mmseg.engine.members import member_claims, train_members, train_members_on
    from dudes_mmseg.engine.rehearsal import rehearse
    from dudes_mmseg.engine.training import use_mixed_precision

    cfg = build_config(args)
    if args.amp:
        use_mixed_precision(cfg)
    numbers = members(args)
    check_room(cfg.work_dir, len(numbers) * rehearse(cfg).checkpoint, written="*")
    check_claims(member_claims(cfg, numbers, args.folds), WAY_OUT, args.overwrite)
    if args.gpus and args.only is None:
        others = [word for word in words if word != "--overwrite"]  # done by now
        train_members_on(args.gpus, cfg, numbers, [__file__, *others])
    else:
        train_members(cfg, numbers, Steps(len(numbers)), args.folds)


def train_detectors(args: argparse.Namespace) -> None:
    """Train the members, one after the other; what each of the processes does."""
    from detectron2.utils import comm

    from ddn_detectron2.cli import setup
    from ddn_detectron2.engine.claims import WAY_OUT
    from ddn_detectron2.engine.members import member_claims, rehearse_members, train_members

    cfg, numbers = setup(args), members(args)
    if comm.is_main_process():
        check_claims(member_claims(cfg, numbers, args.folds), WAY_OUT, args.overwrite)
        rehearse_members(cfg, numbers, args.folds)
    comm.synchronize()
    weights = train_members(cfg, numbers, Steps(len(numbers)) if comm.is_main_process() else silent, args.folds)
    if comm.is_main_process():
        out_of_fold = " MODEL.DDN.TEACHER.OUT_OF_FOLD True" if args.folds else ""
        echo(f'the ensemble as a teacher: MODEL.DDN.TEACHER.WEIGHTS "{tuple(weights)}"{out_of_fold}')


def members(args: argparse.Namespace) -> Sequence[int]:
    """The numbers of those to train."""
    return range(args.members) if args.only is None else args.only


def main(argv: Sequence[str] | None = None) -> None:
    """Train the members."""
    words = sys.argv[1:] if argv is None else argv
    parser, args = parse_task(words, TASKS, build_parser)
    check_at_least(parser, args, 2, "members")  # one network has nobody to differ from
    check_folds(parser, args)
    with program(args):
        if args.task == "segmentation":
            train_segmentors(args, words)
        else:
            check_detector_arguments(args)
            from ddn_detectron2.cli import launch

            launch(train_detectors, args)


if __name__ == "__main__":
    main()
