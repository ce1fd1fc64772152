"""Write what a teacher says about every ground-truth box of the training set, once, for many students to learn from.

    python tools/generate_targets.py --config-file ddn_R50.yaml MODEL.DDN.TARGETS.STORE targets/coco
    python tools/train_net.py --config-file ddn_R50.yaml MODEL.DDN.TARGETS.STORE targets/coco \\
        MODEL.DDN.TARGETS.SOURCE store

The folder belongs to one teacher and one data set; another one is refused. A run that was killed goes on where it
stopped when it is started again, and ends with the same bytes, whatever the number of processes.
"""

from detectron2.engine import launch
from detectron2.modeling import build_model

from ddn_detectron2.config import ConfigError
from ddn_detectron2.generate import generate_targets
from ddn_detectron2.setup import argument_parser, one_sentence_errors, setup
from ddn_detectron2.trainer import build_with_teacher, training_dicts
from ddn_detectron2.zoo import is_ddn


def main(args):
    """Write the store."""
    cfg = setup(args)
    if not is_ddn(cfg):
        raise ConfigError("the config describes a plain detector: add --ddn, or take one of the ddn_* configs")
    if not cfg.MODEL.DDN.TARGETS.STORE:
        raise ConfigError("MODEL.DDN.TARGETS.STORE must name the folder to write")
    model = build_with_teacher(cfg, build_model(cfg))
    generate_targets(cfg, model, training_dicts(cfg), args.shard_size)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--shard-size", type=int, default=500, help="images per file: what a kill can lose")
    args = parser.parse_args()
    if args.shard_size < 1:
        parser.error(f"--shard-size must be at least 1, got {args.shard_size}")
    with one_sentence_errors():
        launch(main, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,))
