"""Several processes that share every batch, through `torchrun`; with one process all of this does nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .config import ConfigError


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that `torchrun` started, for as long as this lasts."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for the others."""
    if dist.is_initialized():
        dist.barrier()


def my_rows(total: int) -> slice:
    """This process's contiguous share of a batch of `total` rows."""
    return slice(total * rank() // world_size(), total * (rank() + 1) // world_size())


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum of `values` over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def sum_gradients(model: nn.Module) -> None:
    """Add up the gradients of all processes, in one message."""
    if not dist.is_initialized():
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters() if p.requires_grad]
    flat = sum_over_ranks(torch.cat([gradient.flatten() for gradient in gradients]))
    pieces = flat.split([gradient.numel() for gradient in gradients])
    for parameter, piece in zip((p for p in model.parameters() if p.requires_grad), pieces, strict=True):
        parameter.grad = piece.view_as(parameter)


def share_batch_norm(model: nn.Module) -> nn.Module:
    """`model` with batch statistics over all processes."""
    has_batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if world_size() == 1 or not has_batch_norm:
        return model
    if not torch.cuda.is_available():
        raise ConfigError("a network with batch norm needs GPUs to be trained by several processes (SyncBatchNorm)")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
