"""What fewer bits do to an exported classifier: float32, float16, and int8 in two ways, on the test images.

    python tools/benchmarks/precision.py --config quick/digits.yaml --network DDN --overrides output=demo

The experiment must have trained the network. "int8, dynamic" stores weights in 8 bits and measures activations as it
runs; "int8, static" has fixed ranges of activations, found on training images. Both are onnxruntime's own, for
convolutions and linear layers alone.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from classification.config import load_config
from classification.experiment import Experiment
from classification.inference.export import classifier_graph
from uncertainty_core import CalibrationMetric
from uncertainty_core.cli.configs import find_config
from uncertainty_core.export import write_onnx

LAYERS = ["Conv", "Gemm", "MatMul"]  # a softmax in 8 bits is no distribution any more
FIXED_ON = 100  # training images that ranges of activations are found on


class Images(CalibrationDataReader):
    """Images (N, H, W, channels) for onnxruntime's quantiser, one after the other."""

    def __init__(self, images: np.ndarray) -> None:
        self._rest = iter([{"image": images[k : k + 1]} for k in range(len(images))])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next one."""
        return next(self._rest, None)


def variants(path: Path, fit_on: np.ndarray) -> dict[str, Path]:
    """The file at `path`, and beside it the same network in fewer bits."""
    files = {name: path.with_name(f"{name}.onnx") for name in ("float16", "int8, dynamic", "int8, static")}
    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), files["float16"])
    quantize_dynamic(path, files["int8, dynamic"], op_types_to_quantize=LAYERS)
    quantize_static(path, files["int8, static"], Images(fit_on), QuantFormat.QDQ, op_types_to_quantize=LAYERS)
    return {"float32": path, **files}


def main() -> None:
    """Export, convert, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file, or the name of one in configs/classification/")
    parser.add_argument("--network", default="teacher", help="a student of the experiment (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of its training (default: %(default)s)")
    parser.add_argument("--overrides", nargs="+", default=[], metavar="key=value", help="for example output=demo")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # of the quantiser, about a preparation that changes no number here
    config = load_config(find_config(args.config, "classification"), args.overrides)
    experiment = Experiment(config, torch.device("cpu"))
    model = experiment.trained(None if args.network == "teacher" else args.network, args.seed)
    train, test = experiment.train_set, experiment.test_set
    images, fit_on = (split.images.permute(0, 2, 3, 1).numpy() for split in (test, train))
    graph = classifier_graph(model, experiment.statistics, train.images[:1], train.classes)
    print(f"{args.network}, seed {args.seed}: {len(test)} test images of {config.data.name}")
    print(f"{'':<14}  {'kB':>6}  {'accuracy':>8}  {'ECE':>6}  {'NLL':>6}  {'largest change':>14}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(graph, path)
        first = None
        for name, file in variants(path, fit_on[:FIXED_ON]).items():
            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            (found,) = session.run(["probabilities"], {"image": images})
            first = found if first is None else first
            metric = CalibrationMetric(len(test.classes), config.evaluation.num_bins)
            metric.update(torch.from_numpy(found), test.labels)
            values = metric.result().metrics
            print(
                f"{name:<14}  {file.stat().st_size / 1e3:>6.0f}  {values['accuracy']:>8.4f}  {values['ece']:>6.4f}  "
                f"{values['nll_true']:>6.4f}  {np.abs(found - first).max():>14.4f}"
            )


if __name__ == "__main__":
    sys.exit(main())
