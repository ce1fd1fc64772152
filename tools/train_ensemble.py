"""Train the members of a deep ensemble: one config, one seed each.

    distilled-uncertainty train-ensemble quick/streets_member.py --members 4
    distilled-uncertainty train-ensemble deeplabv3plus_r18_cityscapes-768x768_member.py --members 10 --gpus 0 1 2 3

Member k trains in member_<k> of the work dir with seed k. Finished members are left as they are and interrupted ones go
on: start it again after a crash, or with more members.
"""

import argparse
import sys
from collections.abc import Sequence

from uncertainty_core.cli import Steps, check_at_least, program
from uncertainty_core.cli.segmentor_flags import check_segmentor_arguments, segmentor_parser
from uncertainty_core.io.claims import check_claims
from uncertainty_core.io.room import check_room


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = segmentor_parser(__doc__)
    parser.add_argument("--members", type=int, default=10, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--only", type=int, nargs="+", metavar="K", help="train these members alone")
    parser.add_argument("--gpus", nargs="+", metavar="ID", help="train one member per GPU at a time")
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    parser.add_argument("--overwrite", action="store_true", help="start over members that other settings have made")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train the members here, or each in a process of its own."""
    argv = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    args = parser.parse_args(argv)
    check_at_least(parser, args, 2, "members")  # one network has nobody to differ from
    with program(args):
        check_segmentor_arguments(args.config)
        from dudes_mmseg.cli import build_config
        from dudes_mmseg.engine.claims import WAY_OUT
        from dudes_mmseg.engine.members import member_claims, train_members, train_members_on
        from dudes_mmseg.engine.rehearsal import rehearse
        from dudes_mmseg.engine.training import use_mixed_precision

        cfg = build_config(args)
        if args.amp:
            use_mixed_precision(cfg)
        numbers = range(args.members) if args.only is None else args.only
        check_room(cfg.work_dir, len(numbers) * rehearse(cfg).checkpoint, written="*")
        check_claims(member_claims(cfg, numbers), WAY_OUT, args.overwrite)
        if args.gpus and args.only is None:
            others = [word for word in argv if word != "--overwrite"]  # done by now
            train_members_on(args.gpus, cfg, numbers, [__file__, *others])
        else:
            train_members(cfg, numbers, Steps(len(numbers)))


if __name__ == "__main__":
    main()
