"""What a detector finds in a folder of images without labels, image by image, so that it can be continued.

OUTPUT/
  found/           the detections in each image, as JSON
  pictures/        the same, drawn
  detections.json  all of them in COCO's format, with scores: labelling tools read it
  images.csv       one row for each image, the most doubtful first
  index.png        the pictures of the first ones
  predictor.json   what the detector was
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode, Instances
from PIL import Image

from uncertainty_core import file_sha256
from uncertainty_core.cli import log_to, progress
from uncertainty_core.detection.coco_format import Detections
from uncertainty_core.io.files import write_atomically, write_png, write_text
from uncertainty_core.io.images import check_apart, claim_predictions, find_images, unreadable_error
from uncertainty_core.io.records import build

from ..engine.claims import evaluation_settings
from ..evaluation.visualizer import contact_sheet, draw_detections, titled
from .predictor import DDNPredictor

KINDS = ("found", "pictures")


@dataclass(frozen=True)
class Detection:
    """One detection: bbox is left, top, width, height; the others as the instances have them."""

    category_id: int
    bbox: list[float]
    score: float
    score_before: float | None = None
    score_std: float | None = None
    box_std: list[float] | None = None


@dataclass(frozen=True)
class Found:
    """What was found in an image.

    image: its path below the folder of the images; image_sha256: of its file.
    width, height: in pixels.
    """

    image: str
    image_sha256: str
    width: int
    height: int
    detections: list[Detection]

    @property
    def doubt(self) -> float:
        """How many detections are expected to be judged wrongly by "right if the score is at least 0.5"."""
        return sum(min(detection.score, 1 - detection.score) for detection in self.detections)

    @property
    def num_likely(self) -> int:
        """How many detections are rather right than wrong."""
        return sum(detection.score >= 0.5 for detection in self.detections)


def predict_folder(
    cfg: CfgNode, images: Path, output: Path, score_threshold: float = 0.5, top: int = 12
) -> list[Found]:
    """Look for objects in every image, or go on where it stopped; returns what was found, the most doubtful first.

    Images that are in `output` already, and not among these, stay there and in its lists. Those that cannot be read are
    left out, and named by a UserError at the end.

    Args:
        cfg: of a detector, with `MODEL.WEIGHTS`.
        images: a folder, with folders in it or not, or a single image.
        output: made if need be.
        score_threshold: from which on detections are drawn; all are stored.
        top: how many pictures index.png shows.
    """
    sources = find_images(images)
    check_apart(images, output, KINDS)
    categories = categories_of(cfg)
    predictor = DDNPredictor(cfg)
    shown = {"categories": list(categories.values()), "score_threshold": score_threshold}
    others = "detections by other weights, or with another config or --score-threshold"
    claim_predictions(output, evaluation_settings(cfg, cfg.MODEL.WEIGHTS) | shown, KINDS, others)
    log_to(output / "log.txt")
    found = {image: known for image, path in sources.items() if (known := _read(output, image, path))}
    with progress(len(sources), "predict", "image", initial=len(found)) as bar:
        for image, path in sources.items():
            if image in found:
                continue
            try:
                pixels = _pixels(path)
            except (OSError, SyntaxError, Image.DecompressionBombError):
                continue
            instances = predictor(pixels)["instances"].to("cpu")
            found[image] = _found(image, path, instances, list(categories))
            drawn = _drawn(found[image], list(categories), score_threshold)
            picture = draw_detections(Image.fromarray(pixels[:, :, ::-1]), drawn, list(categories.values()))
            _write(output, found[image], picture)
            bar.update()
    for path in sorted((output / "found").rglob("*.json")):
        other = _parsed(path)
        if other is not None and other.image not in sources:
            found[other.image] = other
    ranked = sorted(found.values(), key=lambda of: (-of.doubt, of.image))
    if ranked:
        _write_lists(output, ranked, categories, top)
    if unreadable := [image for image in sources if image not in found]:
        raise unreadable_error(unreadable, len(sources))
    return ranked


def _pixels(path: Path) -> np.ndarray:
    """BGR (H, W, 3); OSError for pixels of more than 8 bits, which Pillow would cut off."""
    with Image.open(path) as picture:
        if picture.mode == "F" or picture.mode.startswith("I"):
            raise OSError(f"{path} has pixels of more than 8 bits")
    return read_image(str(path), format="BGR")


def categories_of(cfg: CfgNode) -> dict[int, str]:
    """Names of the classes by their ids, in the order of the model, from the data sets that the config names."""
    number = (
        cfg.MODEL.RETINANET.NUM_CLASSES if "Retina" in cfg.MODEL.META_ARCHITECTURE else cfg.MODEL.ROI_HEADS.NUM_CLASSES
    )
    return categories((*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN), number)


def categories(datasets: Sequence[str], number: int) -> dict[int, str]:
    """The same from the first of the data sets that has so many classes; numbers for names where none has."""
    for dataset in datasets:
        metadata = MetadataCatalog.get(dataset)
        names = metadata.get("thing_classes")
        if names is not None and len(names) == number:
            ids = metadata.get("thing_dataset_id_to_contiguous_id") or {k + 1: k for k in range(number)}
            return {id_: names[k] for id_, k in sorted(ids.items(), key=lambda item: item[1])}
    return {k + 1: f"class {k}" for k in range(number)}


def _found(image: str, path: Path, instances: Instances, category_ids: Sequence[int]) -> Found:
    box = BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    names = [name for name in ("score_before", "score_std", "box_std") if instances.has(name)]
    columns = [getattr(instances, name).tolist() for name in names]
    rows = zip(instances.pred_classes.tolist(), box.tolist(), instances.scores.tolist(), strict=True)
    detections = [
        Detection(
            category_ids[category],
            bbox,
            score,
            **{name: column[k] for name, column in zip(names, columns, strict=True)},
        )
        for k, (category, bbox, score) in enumerate(rows)
    ]
    height, width = instances.image_size
    return Found(image, file_sha256(path), width, height, detections)


def _drawn(found: Found, category_ids: Sequence[int], score_threshold: float) -> Detections:
    """The detections whose score is high enough, with indices of categories."""
    shown = [detection for detection in found.detections if detection.score >= score_threshold]
    category = np.array([category_ids.index(detection.category_id) for detection in shown], dtype=np.int64)
    box = np.array([detection.bbox for detection in shown]).reshape(-1, 4)
    score = np.array([detection.score for detection in shown], dtype=np.float64)
    std = [detection.box_std for detection in shown]
    box_std = np.array(std) if std and None not in std else None
    return Detections(np.zeros(len(shown), dtype=np.int64), category, box, score, box_std=box_std)


def _path(output: Path, kind: str, image: str, suffix: str) -> Path:
    path = output / kind / PurePosixPath(image).with_suffix(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _parsed(path: Path) -> Found | None:
    """What was written to `path`; None for nothing, or what is damaged."""
    try:
        return build(Found, json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return None


def _read(output: Path, image: str, source: Path) -> Found | None:
    """What is known of an image, None unless all of it is there and of this file."""
    known = _parsed(_path(output, "found", image, ".json"))
    whole = known is not None and known.image_sha256 == file_sha256(source)
    return known if whole and _path(output, "pictures", image, ".png").is_file() else None


def _write(output: Path, found: Found, picture: Image.Image) -> None:
    write_png(_path(output, "pictures", found.image, ".png"), picture, compress_level=1)
    write_text(
        _path(output, "found", found.image, ".json"), json.dumps(asdict(found), indent=1)
    )  # in ASCII: names may be any bytes


def _write_lists(output: Path, ranked: Sequence[Found], categories: Mapping[int, str], top: int) -> None:
    by_name = sorted(ranked, key=lambda of: of.image)
    annotations = [
        {"image_id": k, "area": detection.bbox[2] * detection.bbox[3], "iscrowd": 0}
        | {name: value for name, value in asdict(detection).items() if value is not None}
        for k, of in enumerate(by_name, start=1)
        for detection in of.detections
    ]
    content = {
        "images": [
            {"id": k, "file_name": of.image, "width": of.width, "height": of.height}
            for k, of in enumerate(by_name, start=1)
        ],
        "categories": [{"id": id_, "name": name} for id_, name in categories.items()],
        "annotations": [{"id": k} | annotation for k, annotation in enumerate(annotations, start=1)],
    }
    write_text(output / "detections.json", json.dumps(content))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "width", "height", "detections", "likely", "doubt"])
    writer.writerows(
        [of.image, of.width, of.height, len(of.detections), of.num_likely, f"{of.doubt:.4f}"] for of in ranked
    )
    write_atomically(output / "images.csv", text.getvalue().encode(errors="surrogateescape"))
    pictures = []
    for rank, of in enumerate(ranked[:top], start=1):
        with Image.open(_path(output, "pictures", of.image, ".png")) as picture:
            pictures.append(titled(picture, f"{rank}. {of.image}: doubt {of.doubt:.2f}"))
    write_png(output / "index.png", contact_sheet(pictures))
