"""Train a detector, distil it, or evaluate either: Detectron2's own train_net.py, plus what distillation needs.

    distilled-uncertainty train-net --config-file ddn_R50.yaml                       # a name in configs/ddn/
    distilled-uncertainty train-net --config-file COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml --ddn \\
        MODEL.WEIGHTS path/to/trained.pth                                                   # any model of the zoo
    distilled-uncertainty train-net --config-file my.yaml --ddn --train-json train.json --train-images train/ \\
        --val-json val.json --val-images val/ MODEL.WEIGHTS my.pth                          # data of your own
    distilled-uncertainty train-net --config-file ddn_R50.yaml --eval-only MODEL.WEIGHTS student.pth
    distilled-uncertainty train-net --config-file new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py --ddn \\
        train.init_checkpoint=path/to/trained.pth                                           # a LazyConfig
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uncertainty_core.cli import echo, program
from uncertainty_core.cli.flags import add_unlabelled, check_detector_arguments, detector_parser, is_lazy
from uncertainty_core.errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from omegaconf import DictConfig


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = detector_parser(__doc__)
    add_unlabelled(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS, train nothing")
    return parser


def train_or_evaluate(args: argparse.Namespace) -> None:
    """What each of the processes does."""
    from detectron2.utils import comm

    from ddn_detectron2.cli import setup
    from ddn_detectron2.engine.progress import results_text

    cfg = setup(args)
    lazy = is_lazy(args.config_file)
    results = (with_lazy_config if lazy else with_yaml_config)(cfg, args)
    if comm.is_main_process():
        if results:
            echo(results_text(results))
        echo(f"written to {cfg.train.output_dir if lazy else cfg.OUTPUT_DIR}")


def with_yaml_config(cfg: "CfgNode", args: argparse.Namespace) -> dict[str, Any] | None:
    """The results of an evaluation, or of a training's last one."""
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.evaluation import verify_results
    from detectron2.utils import comm

    from ddn_detectron2.engine.trainer import DDNTrainer, load_detector
    from ddn_detectron2.schedule import schedule_text

    try:
        if args.eval_only:
            model = DDNTrainer.build_model(cfg)
            checkpoints = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
            last = checkpoints.get_checkpoint_file() if args.resume and checkpoints.has_checkpoint() else None
            load_detector(cfg, model, last or cfg.MODEL.WEIGHTS)
            results = DDNTrainer.test(cfg, model)
            if comm.is_main_process():
                verify_results(cfg, results)
            return results
        if args.ddn and comm.is_main_process():
            echo(schedule_text(cfg))
        trainer = DDNTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()
    except SystemExit:  # of verify_results
        raise UserError("the results are not those that TEST.EXPECTED_RESULTS expects") from None


def with_lazy_config(cfg: "DictConfig", args: argparse.Namespace) -> dict[str, Any]:
    """The same for a LazyConfig."""
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.utils import comm

    from ddn_detectron2.lazy import build_network, evaluate, load_detector, train
    from ddn_detectron2.lazy.config import schedule_text

    if args.eval_only:
        model = build_network(cfg)
        checkpoints = DetectionCheckpointer(model, save_dir=cfg.train.output_dir)
        last = checkpoints.get_checkpoint_file() if args.resume and checkpoints.has_checkpoint() else None
        load_detector(cfg, model, last or cfg.train.init_checkpoint)
        return evaluate(cfg, model)
    if args.ddn and comm.is_main_process():
        echo(schedule_text(cfg))
    return train(cfg, args.resume)


def main(argv: Sequence[str] | None = None) -> None:
    """Train or evaluate."""
    args = build_parser().parse_args(argv)
    with program(args):
        check_detector_arguments(args, lazy=True)
        from ddn_detectron2.cli import launch

        launch(train_or_evaluate, args)


if __name__ == "__main__":
    main()
