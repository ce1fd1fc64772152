"""Train a detector, distil it, or evaluate either: Detectron2's own train_net.py, plus what distillation needs.

    python tools/train_net.py --config-file ddn_R50.yaml                                    # a name in configs/ddn/
    python tools/train_net.py --config-file COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml --ddn \\
        MODEL.WEIGHTS path/to/trained.pth                                                   # any model of the zoo
    python tools/train_net.py --config-file my.yaml --ddn --train-json train.json --train-images train/ \\
        --val-json val.json --val-images val/ MODEL.WEIGHTS my.pth                          # data of your own
    python tools/train_net.py --config-file ddn_R50.yaml --eval-only MODEL.WEIGHTS student.pth
"""

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import launch
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from ddn_detectron2.cli import argument_parser, setup
from ddn_detectron2.engine.trainer import DDNTrainer, load_weights
from uncertainty_core.errors import one_sentence_errors


def main(args):
    """Train or evaluate; returns the results."""
    cfg = setup(args)
    if args.eval_only:
        model = DDNTrainer.build_model(cfg)
        checkpoints = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
        last = checkpoints.get_checkpoint_file() if args.resume and checkpoints.has_checkpoint() else None
        load_weights(cfg, model, last or cfg.MODEL.WEIGHTS)
        results = DDNTrainer.test(cfg, model)
        if comm.is_main_process():
            verify_results(cfg, results)
        return results
    trainer = DDNTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    args = argument_parser(__doc__).parse_args()
    with one_sentence_errors():
        launch(main, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,))
