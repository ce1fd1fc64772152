"""Resuming where mmengine throws batches away: version 0.10.7 loads them, after the hook has seeded."""

from types import SimpleNamespace

import torch

from dudes_mmseg.hooks import KeyedRandomnessHook


def batches():
    """As a data set that augments: each batch is drawn."""
    while True:
        yield torch.rand(()).item()


def test_batches_that_are_thrown_away_leave_no_trace():
    def draw(iteration, thrown_away):
        runner = SimpleNamespace(iter=iteration, seed=3, train_loop=SimpleNamespace(dataloader_iterator=batches()))
        hook = KeyedRandomnessHook()
        hook.before_train(runner)
        for _ in range(thrown_away):
            next(runner.train_loop.dataloader_iterator)
        return next(runner.train_loop.dataloader_iterator)

    hook, undisturbed = KeyedRandomnessHook(), SimpleNamespace(iter=1, seed=3)
    hook.after_train_iter(undisturbed, 1)  # what comes next is the data of iteration 2
    expected = next(batches())
    assert draw(2, thrown_away=2) == expected
    assert draw(0, thrown_away=0) != draw(2, thrown_away=2)
