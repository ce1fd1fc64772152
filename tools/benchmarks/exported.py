"""Latency of exported segmentors in onnxruntime as ratios: a student's graph against its baseline's, and its teacher.

A teacher of three members runs the baseline's graph three times. Random weights, one thread.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from timing import argument_parser, race

import dudes_mmseg  # noqa: F401  (registers)
from dudes_mmseg.cli import read_config
from dudes_mmseg.inference.export import segmentor_graph
from uncertainty_core.export import noise, write_onnx

CONFIG = "deeplabv3plus_r18_cityscapes-768x768_member.py"


def runner(model: dict, folder: Path, name: str, threads: int, times: int = 1) -> Callable[[np.ndarray], float]:
    """Runs the graph of a config, so many times, and returns the mean of its classes."""
    torch.manual_seed(0)
    built = MODELS.build(model).eval()
    path = folder / f"{name}.onnx"
    write_onnx(segmentor_graph(built, [str(k) for k in range(built.num_classes)], (256, 512)), path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(image: np.ndarray) -> float:
        for _ in range(times):
            classes, *_ = session.run(names, {"image": image})
        return float(classes.mean())

    return run


def main() -> None:
    """Export all, time all."""
    parser = argument_parser(__doc__, rounds=11)
    parser.add_argument(
        "--shape", nargs=2, type=int, default=(512, 1024), metavar=("H", "W"), help="of the image (default: 512 1024)"
    )
    args = parser.parse_args()
    init_default_scope("mmseg")
    torch.set_num_threads(args.threads)
    cfg = read_config(CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        contenders = {
            "baseline": runner(cfg.model, place, "baseline", args.threads),
            "student": runner({**cfg.model, "type": "DUDESEncoderDecoder"}, place, "student", args.threads),
            "teacher of 3": runner(cfg.model, place, "teacher", args.threads, times=3),
        }
        height, width = args.shape
        title = f"DeepLabV3+ R18, {height} x {width}, onnxruntime {onnxruntime.__version__}"
        race(title, contenders, (noise(height, width).numpy(),), args.rounds)


if __name__ == "__main__":
    sys.exit(main())
