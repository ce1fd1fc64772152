"""Train a segmentor: a baseline, a member of an ensemble, or a student that learns its uncertainty.

    python tools/train_seg.py quick/streets_member.py
    python tools/train_seg.py deeplabv3plus_r18_cityscapes-768x768_student.py --work-dir runs/student --resume
    torchrun --nproc_per_node 4 tools/train_seg.py my_student.py --launcher pytorch

A config is a file, or a name in configs/dudes. The arguments are those of mmsegmentation's own tools/train.py.
"""

from dudes_mmseg.cli import argument_parser, build_config
from dudes_mmseg.engine.training import train, use_mixed_precision
from uncertainty_core.errors import one_sentence_errors

if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint in --work-dir")
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    args = parser.parse_args()
    with one_sentence_errors():
        cfg = build_config(args)
        if args.amp:
            use_mixed_precision(cfg)
        train(cfg, args.resume)
