"""Distil an ensemble and compare: baseline, ensemble, and students that say in one pass how sure they are.

    python tools/distill_segmentor.py quick/streets_student.py --member-config quick/streets_member.py --members 4
    python tools/distill_segmentor.py my_student.py --member-config my_member.py --members 10 --work-dir distilled

Trains the members, stores what they say about the training images, trains the student on it, and measures all of them
on the test set; the first member is the baseline. Finished steps are not repeated: start it again after a crash.
"""

from pathlib import Path

from dudes_mmseg.cli import argument_parser, build_config, find_config, read_config
from dudes_mmseg.engine.pipeline import classes_text, compare, distil, draw_sparsification, summary_text
from uncertainty_core.errors import UserError, one_sentence_errors

if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--member-config", required=True, metavar="FILE", help="a network of the ensemble")
    parser.add_argument("--members", type=int, default=10, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--also", action="append", default=[], metavar="FILE", help="another student; may be repeated")
    args = parser.parse_args()
    with one_sentence_errors():
        if args.members < 2:
            raise UserError(f"--members must be at least 2, got {args.members}: one network has nobody to differ from")
        cfg = build_config(args)
        output = Path(cfg.work_dir)
        member = read_config(args.member_config, args.cfg_options)
        students = {find_config(args.config).stem: cfg}
        students |= {find_config(name).stem: read_config(name, args.cfg_options) for name in args.also}
        teacher, trained = distil(member, students, args.members, output)
        records = compare(member, teacher, students, trained, output)
        first = next(iter(students))
        print(f"\n{summary_text(output)}\n\n{classes_text(records['teacher'], records[first])}\n")
        print(f"mIoU and IoU in percent, all else in plain values. See {draw_sparsification(output)}, and in")
        print(
            f"{output / 'rows' / first / 'uncertainty'} image, truth, prediction, errors and uncertainty side by side."
        )
        print(f"One page of it all: python -m uncertainty_core.report {output / 'rows'} -o {output / 'report.html'}")
