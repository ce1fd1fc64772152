"""Fine-tuning, as `--ddn` sets it, and what its user chooses instead."""

import pytest
from detectron2 import model_zoo

from ddn_detectron2.schedule import schedule_text, set_fine_tuning


def solver(*options):
    """Of a model of the zoo, whose own schedule is one from scratch, and the line about it."""
    cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml")
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.CHECKPOINT_PERIOD) == (270000, 1000, 5000)
    cfg.merge_from_list(list(options))
    set_fine_tuning(cfg, options[::2])
    return cfg.SOLVER, schedule_text(cfg)


def test_a_head_is_fine_tuned():
    chosen, text = solver()
    assert (chosen.MAX_ITER, chosen.BASE_LR, chosen.STEPS, chosen.WARMUP_ITERS) == (1000, 0.001, (), 100)
    assert text == (
        "schedule: 1000 iterations, learning rate 0.001, warm-up 100, checkpoint every 250, "
        "gradients clipped (norm 10); SOLVER.* options change it"
    )
    assert chosen.IMS_PER_BATCH == 16  # what fits into memory is not ours to know


@pytest.mark.parametrize(
    ("iterations", "warm_up", "period"), [(1, 0, 1), (4, 0, 1), (90, 9, 23), (20000, 100, 5000)]
)  # a tenth, and a quarter rounded up
def test_the_rest_follows_the_iterations(iterations, warm_up, period):
    chosen, _ = solver("SOLVER.MAX_ITER", iterations)
    assert [chosen[key] for key in ("MAX_ITER", "WARMUP_ITERS", "CHECKPOINT_PERIOD")] == [iterations, warm_up, period]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("BASE_LR", 0.5),
        ("STEPS", (60, 80)),
        ("WARMUP_ITERS", 7),
        ("CHECKPOINT_PERIOD", 9),
        ("CLIP_GRADIENTS.ENABLED", False),
        ("CLIP_GRADIENTS.CLIP_TYPE", "value"),
        ("CLIP_GRADIENTS.CLIP_VALUE", 2.0),
    ],
)
def test_what_the_user_gives_stays(key, value):
    chosen, text = solver(f"SOLVER.{key}", value)
    for part in key.split("."):
        chosen = chosen[part]
    assert chosen == value
    assert ("no clipping" in text) == (value is False)
