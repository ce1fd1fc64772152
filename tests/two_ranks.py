"""Two processes that are the ranks of one job."""

import multiprocessing
from pathlib import Path

import torch


def _rank(function, folder, rank, arguments):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(function(rank, *arguments), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def in_two_ranks(function, folder: Path, *arguments) -> list:
    """What `function(rank, *arguments)` returns in rank 0 and in rank 1; `folder` is empty, and for their meeting."""
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(function, folder, rank, arguments)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout=60)
        rank.kill()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
