"""The schedule that `--ddn` gives a training: fine-tuning of a box head, in the place of a training from scratch."""

from collections.abc import Collection

from detectron2.config import CfgNode

ITERATIONS = 1000  # the paper's
LEARNING_RATE = 0.001  # the paper's
MOST_WARM_UP = 100  # iterations: until the momentum has settled, with a tenth of a short training at most
CHECKPOINTS = 4  # of a training, so that an interruption costs a quarter of it at most
GRADIENT_NORM = 10.0  # of each parameter: what a training that does not diverge stays below


def set_fine_tuning(cfg: CfgNode, given: Collection[str] = ()) -> None:
    """Set the keys of `SOLVER` in place, but for those in `given`, which the user has chosen."""

    def choose(**values: object) -> None:
        chosen = {f"SOLVER.{key.replace('__', '.')}": value for key, value in values.items()}
        cfg.merge_from_list([item for key, value in chosen.items() if key not in given for item in (key, value)])

    choose(MAX_ITER=ITERATIONS, BASE_LR=LEARNING_RATE, STEPS=())
    iterations = cfg.SOLVER.MAX_ITER
    choose(WARMUP_ITERS=min(MOST_WARM_UP, iterations // 10), CHECKPOINT_PERIOD=max(1, -(-iterations // CHECKPOINTS)))
    choose(CLIP_GRADIENTS__ENABLED=True, CLIP_GRADIENTS__CLIP_TYPE="norm", CLIP_GRADIENTS__CLIP_VALUE=GRADIENT_NORM)


def schedule_text(cfg: CfgNode) -> str:
    """The schedule of a training in one line, with the way to another one."""
    solver = cfg.SOLVER
    clipping = solver.CLIP_GRADIENTS
    clipped = f"gradients clipped ({clipping.CLIP_TYPE} {clipping.CLIP_VALUE:g})" if clipping.ENABLED else "no clipping"
    return (
        f"schedule: {solver.MAX_ITER} iterations, learning rate {solver.BASE_LR:g}, warm-up {solver.WARMUP_ITERS}, "
        f"checkpoint every {solver.CHECKPOINT_PERIOD}, {clipped}; SOLVER.* options change it"
    )
