"""Write a trained network as a file that runs without this project: ONNX, TorchScript, or the framework's own weights.

Detection (the default):

    distilled-uncertainty export --config-file ddn_R50.yaml --image street.jpg --output exported \\
        MODEL.WEIGHTS model_final.pth

Segmentation:

    distilled-uncertainty export --task segmentation my_student.py iter_80000.pth --size 512 1024 --output exported

Classification:

    distilled-uncertainty export --task classification --config quick/digits.yaml --network DDN --output exported

OUTPUT gets model.onnx: from the bytes of images, in RGB, to classes, probabilities and every uncertainty, with the
normalisation of pixels and the calibrators of the config inside. Names of classes, the layout of input and output,
versions and the fingerprint of the weights are in its metadata. --format torchscript writes model.ts, the same graph
for libtorch. Either file is tried before the program ends. --format plain writes weights that the framework itself
loads without this package; it has no uncertainty and no calibrator, which goes into a file beside it.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uncertainty_core.cli import add_common_flags, echo, log_to, parse_task, program
from uncertainty_core.cli.configs import check_config, find_config
from uncertainty_core.cli.flags import check_detector_arguments, detector_parser, is_lazy
from uncertainty_core.cli.segmentor_flags import CONFIG_HELP, check_segmentor_arguments, options_parser
from uncertainty_core.errors import UserError

if TYPE_CHECKING:  # a mistake on the command line is found without torch
    from detectron2.data.transforms import Augmentation
    from torch import Tensor, nn

    from uncertainty_core.export import Graph

TASKS = ("detection", "segmentation", "classification")
FORMATS = ("onnx", "torchscript", "plain")


def build_parser(task: str = TASKS[0]) -> argparse.ArgumentParser:
    """The command line for one of the tasks."""
    parser = {
        "detection": detection_parser,
        "segmentation": segmentation_parser,
        "classification": classification_parser,
    }[task]()
    parser.add_argument("--task", choices=TASKS, default=task, help="what the network does (default: detection)")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write")
    return parser


def detection_parser() -> argparse.ArgumentParser:
    """What the tools of detectors take."""
    parser = detector_parser(__doc__, processes=False)
    parser.add_argument(
        "--image", type=Path, metavar="FILE", help="a picture that the graph is traced and tried on (default: noise)"
    )
    return parser


def segmentation_parser() -> argparse.ArgumentParser:
    """A config and a checkpoint, as mmsegmentation's own tools take them."""
    parser = options_parser(__doc__)
    parser.add_argument("config", help=CONFIG_HELP)
    parser.add_argument("checkpoint", help="weights of the student")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        default=(512, 512),
        metavar=("H", "W"),
        help="of the image that the graph is traced on; matters where the network takes one size alone (default: 512 "
        "512)",
    )
    return parser


def classification_parser() -> argparse.ArgumentParser:
    """An experiment, and which of its networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file, or the name of one in configs/classification/")
    parser.add_argument("--network", default="teacher", help="a student of the experiment, or %(default)s (default)")
    parser.add_argument("--seed", type=int, help="of its training (default: the first)")
    parser.add_argument("--calibrator", type=Path, metavar="FILE", help="of its probabilities, as evaluate writes it")
    parser.add_argument("--overrides", nargs="+", default=[], metavar="key=value", help="for example output=demo")
    add_common_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file and try it."""
    words = sys.argv[1:] if argv is None else argv
    parser, args = parse_task(words, TASKS, build_parser)
    if args.task == "segmentation":
        for number in args.size:
            if number < 1:
                parser.error(f"--size must be two numbers of pixels, got {args.size}")
    export = {"detection": export_detector, "segmentation": export_segmentor, "classification": export_classifier}
    with program(args):
        export[args.task](args)


def export_detector(args: argparse.Namespace) -> None:
    """Write a detector of Detectron2."""
    check_detector_arguments(args, lazy=True)
    if args.image is not None and not args.image.is_file():
        raise UserError(f"--image: there is no file {args.image}")
    if args.format == "plain":
        from ddn_detectron2.inference.plain import write_plain

        write_plain(args)
        return
    log_to(args.output / "log.txt")
    from ddn_detectron2.data.coco_check import opened
    from ddn_detectron2.inference.graph import detector_graph, examples

    if args.image is not None:
        with opened(args.image) as picture:
            picture.load()

    model, classes, resize = (lazy_detector if is_lazy(args.config_file) else yaml_detector)(args)
    example, other = examples(resize, args.image)
    make = partial(detector_graph, model.cpu(), classes, example)
    write_graph(make, args.format, args.output, other)


def yaml_detector(args: argparse.Namespace) -> "tuple[nn.Module, tuple[str, ...], Augmentation]":
    """The detector of a YAML config, names of its classes, and how it is shown images."""
    from ddn_detectron2.cli import build_config
    from ddn_detectron2.inference.folder import categories_of
    from ddn_detectron2.inference.predictor import DDNPredictor

    cfg = build_config(args)
    predictor = DDNPredictor(cfg)
    return predictor.model, tuple(categories_of(cfg).values()), predictor.aug


def lazy_detector(args: argparse.Namespace) -> "tuple[nn.Module, tuple[str, ...], Augmentation]":
    """The same of a LazyConfig."""
    from detectron2.config import instantiate

    from ddn_detectron2.inference.folder import categories
    from ddn_detectron2.lazy import build_config, build_network, load_detector
    from ddn_detectron2.lazy.config import dataset_names

    cfg = build_config(args)
    model = build_network(cfg).eval()
    load_detector(cfg, model, cfg.train.init_checkpoint)
    number = (cfg.model.get("roi_heads") or {}).get("num_classes", 0)  # a graph without ROI heads is refused
    names = categories(dataset_names(cfg, "test"), number)
    return model, tuple(names.values()), instantiate(cfg.dataloader.test.mapper).augmentations


def export_segmentor(args: argparse.Namespace) -> None:
    """Write a segmentor of mmsegmentation."""
    check_segmentor_arguments(args.config, checkpoints=(args.checkpoint,))
    from mmengine.registry import init_default_scope

    from dudes_mmseg.cli import read_config
    from dudes_mmseg.compat import silence
    from dudes_mmseg.inference.export import export_plain, segmentor_graph
    from dudes_mmseg.inference.predict import classes_of, load_student
    from uncertainty_core.export import noise

    silence()
    cfg = read_config(args.config, args.cfg_options)
    if absent := [name for name in ("model", "test_dataloader") if not cfg.get(name)]:
        raise UserError(f"the config has no {absent[0]}")
    init_default_scope(cfg.get("default_scope") or "mmseg")
    log_to(args.output / "log.txt")
    model, weights = load_student(cfg, args.checkpoint)
    classes = weights.classes or classes_of(cfg, model.num_classes)
    if args.format == "plain":
        for path in export_plain(cfg, model, classes, args.output):
            echo(f"wrote {path}")
    else:
        height, width = args.size
        make = partial(segmentor_graph, model, classes, (height, width))
        write_graph(make, args.format, args.output, noise(height + 32, width + 64))


def export_classifier(args: argparse.Namespace) -> None:
    """Write a network of an experiment."""
    path = find_config(args.config, "classification")
    check_config(path, "classification")
    import torch

    from classification.config import load_config
    from classification.experiment import Experiment
    from classification.inference.export import classifier_graph, export_plain
    from uncertainty_core.recalibration import check_fits, load
    from uncertainty_core.recalibration.base import PROBABILITIES

    experiment = Experiment(load_config(path, args.overrides), torch.device("cpu"))
    if args.network not in ("teacher", *experiment.config.students):
        raise UserError(
            f"--network must be teacher or one of {', '.join(experiment.config.students)}, got {args.network!r}"
        )
    student = None if args.network == "teacher" else args.network
    seed = experiment.run_of(student).seeds[0] if args.seed is None else args.seed
    log_to(args.output / "log.txt")
    model, images = experiment.trained(student, seed), experiment.train_set
    calibrator = None if args.calibrator is None else load(args.calibrator)
    if calibrator is not None:
        check_fits(calibrator, PROBABILITIES, len(images.classes))
    if args.format == "plain":
        for path in export_plain(model, calibrator, args.output):
            echo(f"wrote {path}")
    else:
        graph = classifier_graph(model, experiment.statistics, images.images[:1], images.classes, calibrator)
        write_graph(lambda _: graph, args.format, args.output, graph.example)


def write_graph(make: "Callable[[bool], Graph]", file_format: str, folder: Path, other: "Tensor") -> None:
    """Write model.onnx or model.ts, and print what it takes and gives; `make` and `other` as `write_tried`."""
    from uncertainty_core.export import ONNX, OPSET, TORCHSCRIPT, write_tried

    kind = ONNX if file_format == "onnx" else TORCHSCRIPT
    written = write_tried(kind, make, folder, other)
    description = written.graph.description
    echo(f"wrote {written.path}{f', opset {OPSET}' * (kind is ONNX)}")
    echo(f"  image: {description.input}")
    for name, meaning in description.outputs.items():
        echo(f"  {name}: {meaning}")
    if written.one_size is not None:
        echo(f"images of one size alone: {written.one_size}")
    echo(f"{kind.runtime} and the network differ by at most {max(written.difference.values()):.1e}")


if __name__ == "__main__":
    main()
