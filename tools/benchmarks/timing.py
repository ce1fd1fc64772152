"""What the benchmarks share: contenders that take turns, memory of a fresh process, a step of an optimizer, flags.

Contenders take turns within one process, so that a machine whose speed drifts slows all of them alike.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Contender = Callable[..., float]
Result = TypeVar("Result")


def argument_parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """The flags of every benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="how often each contender runs (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    return parser


def race(title: str, contenders: Mapping[str, Contender], inputs: Sequence[Any], rounds: int) -> None:
    """Print the median time of each contender, and the median over rounds of its ratio to the first one's."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    values = {name: contender(*inputs) for name, contender in contenders.items()}  # warm-up
    for _ in range(rounds):
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender(*inputs)
            times[name].append(time.perf_counter() - start)
    first = next(iter(contenders))
    print(f"\n{title}, {rounds} alternating rounds")
    for name, taken in times.items():
        ratio = statistics.median(t / o for t, o in zip(taken, times[first], strict=True))
        print(f"  {name:<34} {statistics.median(taken) * 1e3:9.1f} ms   {ratio:6.2f}x   value {values[name]:.6f}")


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """What a module's function returns in a process of its own, which starts with the peak memory of this one."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_growth(run: Callable[[], Any]) -> float:
    """MiB by which the peak memory of this process grows during `run`."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """One step down; returns the loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
