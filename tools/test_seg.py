"""Evaluate a segmentor on its test set: a baseline, an ensemble, Monte-Carlo dropout, or a student.

    python tools/test_seg.py quick/streets_student.py work_dirs/streets_student/iter_400.pth
    python tools/test_seg.py quick/streets_teacher.py

Prints what the config's test_evaluator measures, and writes it to metrics.json in the work dir. A teacher has its
checkpoints in its config. The arguments are those of mmsegmentation's own tools/test.py.
"""

from pathlib import Path

from dudes_mmseg.cli import argument_parser, build_config
from dudes_mmseg.engine.evaluation import evaluate, use_test_time_augmentation, write_predictions
from uncertainty_core.errors import one_sentence_errors

if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("checkpoint", nargs="?", help="weights; a teacher has its own")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation: the config's tta_pipeline")
    parser.add_argument("--out", metavar="DIR", help="write predicted classes there, as PNG")
    args = parser.parse_args()
    with one_sentence_errors():
        cfg = build_config(args)
        if args.tta:
            use_test_time_augmentation(cfg)
        if args.out:
            write_predictions(cfg, args.out)
        evaluate(cfg, args.checkpoint)
        print(f"written to {Path(cfg.work_dir) / 'metrics.json'}")
