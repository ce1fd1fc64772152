"""Damaged files of every format: refused in one sentence, or read as an independent reader reads the same bytes.

    make fuzz SEED=3

damages each format 2000 times; the suite does so a few times. A failure names what to set to see it again.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import struct
import warnings
import zipfile
from ast import literal_eval
from random import Random

import numpy as np
import pytest
import torch
import yaml
from fuzz.mutations import damaged_bytes, damaged_json, damaged_yaml
from report_runs import bins, record, risk
from torch import nn

from classification.checkpoint import load_model, save_model
from classification.config import load_config
from uncertainty_core import TargetStore, write_targets
from uncertainty_core.cli.configs import check_config
from uncertainty_core.detection import Settings, evaluate, match_images, read_detections, read_ground_truth
from uncertainty_core.errors import UserError
from uncertainty_core.functional.sparsification import pixel_levels
from uncertainty_core.intervals import FILE as IMAGES
from uncertainty_core.intervals.classified import ClassifiedImages
from uncertainty_core.intervals.detected import DetectedImages
from uncertainty_core.intervals.segmented import SegmentedImages, ranking_row
from uncertainty_core.intervals.storage import read_images, read_resamples, write_images
from uncertainty_core.io.claims import check_claim, claim
from uncertainty_core.recalibration import ClassWise, OperatingPoints, Platt, load, save
from uncertainty_core.report.find import find_runs
from uncertainty_core.report.page import build_page

COUNT, SEED = int(os.environ.get("FUZZ_COUNT", 40)), int(os.environ.get("FUZZ_SEED", 0))


def fuzz(name, content, damages, read, parts=1):
    """Damage `content` and `read` it, which must end in a UserError of one line, or well.

    It is one of so many `parts` of a format, which share the mutations.
    """
    count = -(-COUNT // parts)
    print(f"{name}: {count} mutations, seed {SEED}")
    refused = 0
    for k in range(count):
        random = Random(f"{name} {SEED} {k}")
        bad = random.choice(damages)(content, random)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(bad)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 10_000, f"{name}, seed {SEED}, mutation {k}: {error}"
        except Exception as error:
            raise AssertionError(f"{name}, seed {SEED}, mutation {k}: {bad[:2000]!r}") from error
    assert 0 < refused <= count
    print(f"{name}: {refused} refused, {count - refused} read alike")


def same(ours, theirs):
    """Equal to the bit, where NaN equals NaN."""
    assert repr(ours) == repr(theirs)


# --- COCO --------------------------------------------------------------------------------------------------------

TRUTH = {
    "images": [{"id": k, "width": 100, "height": 80, "file_name": f"{k}.jpg"} for k in (3, 5, 9)],
    "categories": [{"id": 2, "name": "cat"}, {"id": 7, "name": "dog"}],
    "annotations": [
        {
            "id": k,
            "image_id": (3, 5, 9)[k % 3],
            "category_id": (2, 7)[k % 2],
            "bbox": [5 * k, 8, 20.5, 30],
            "iscrowd": 0,
        }
        | ({"area": 500.0 + k} if k % 2 else {})
        for k in range(6)
    ],
}
FOUND = [
    {
        "image_id": (3, 5, 9)[k % 3],
        "category_id": (2, 7)[k % 2],
        "bbox": [5 * k + 1, 9, 20, 28.5],
        "score": 0.1 * k + 0.05,
    }
    | ({"score_before": 0.9 - 0.1 * k} if k > 4 else {})
    for k in range(8)
]


def number(value):
    assert type(value) in (int, float)
    return float(value)


def plain_truth(content):
    """Images with their sizes, names of categories, and annotations, by plain loops."""
    images = {image["id"]: [number(image["width"]), number(image["height"])] for image in content["images"]}
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    assert len(images) == len(content["images"]) and len(names) == len(content["categories"])
    boxes = []
    for each in content["annotations"]:
        left, top, width, height = map(number, each["bbox"])
        area = number(each["area"]) if "area" in each else width * height
        assert each["image_id"] in images and each["category_id"] in names and area >= 0
        crowd = number(each.get("iscrowd", 0)) == 1
        boxes.append([each["image_id"], each["category_id"], [left, top, width, height], area, crowd])
    return images, names, sorted(boxes, key=repr)


def test_coco_ground_truth(tmp_path):
    path = tmp_path / "gt.json"

    def read(content):
        path.write_bytes(content)
        truth = read_ground_truth(path)
        images, names, boxes = plain_truth(json.loads(content))
        assert dict(zip(truth.image_ids, truth.image_size.tolist(), strict=True)) == images
        if len(set(names.values())) == len(names):
            assert dict(zip(truth.category_ids, truth.category_names, strict=True)) == names
        ids = [truth.image_ids[k] for k in truth.image], [truth.category_ids[k] for k in truth.category]
        columns = *ids, truth.box.tolist(), truth.area.tolist(), truth.crowd.tolist()
        assert sorted(map(list, zip(*columns, strict=True)), key=repr) == boxes

    fuzz("COCO ground truth", json.dumps(TRUTH).encode(), (damaged_json, damaged_json, damaged_bytes), read)


def test_coco_results(tmp_path):
    path, truth = tmp_path / "dt.json", read_ground_truth(TRUTH)

    def read(content):
        path.write_bytes(content)
        found = read_detections(path, truth)
        plain = []
        for each in json.loads(content):
            assert type(each["image_id"]) in (int, str)
            if each["image_id"] not in (3, 5, 9):
                continue  # a warning counts it
            box, score = list(map(number, each["bbox"])), number(each["score"])
            assert 0 <= score <= 1 and box[2] >= 0 and box[3] >= 0 and each["category_id"] in (2, 7)
            before = number(each.get("score_before", score))
            plain.append([each["image_id"], each["category_id"], box, score, before])
        ids = [truth.image_ids[k] for k in found.image], [truth.category_ids[k] for k in found.category]
        columns = *ids, found.box.tolist(), found.score.tolist(), found.score_before.tolist()
        assert sorted(map(list, zip(*columns, strict=True)), key=repr) == sorted(plain, key=repr)
        evaluation = evaluate(truth, match_images(truth, found, Settings((0.5,))), Settings((0.5,)))
        assert 0 <= evaluation.precision["AP"] <= 100
        assert not len(found) or not evaluation.calibration_metrics["d_ece@50"] > 1

    fuzz("COCO results", json.dumps(FOUND).encode(), (damaged_json, damaged_json, damaged_bytes), read)


# --- records of runs and claims ----------------------------------------------------------------------------------


def plain(value):
    """Integers as floats where they are equal, and what JSON lacks as a float."""
    if isinstance(value, dict):
        return {key: plain(child) for key, child in sorted(value.items())}
    if isinstance(value, list):
        return [plain(child) for child in value]
    with contextlib.suppress(OverflowError):  # a seed may be as large as it likes
        return float(value) if type(value) in (int, float) or value in ("nan", "inf", "-inf") else value
    return value


def given(value):
    """Without what is null, which may as well be absent."""
    if isinstance(value, dict):
        return {key: given(child) for key, child in value.items() if child is not None}
    return value


def test_records(tmp_path):
    written = record(
        metrics={"accuracy": 0.5, "ece": math.nan},
        reliability=bins(1.2),
        curves={"risk_coverage": risk(0.2)},
        per_class={"recall": {"0": 0.5, "1": 1.0}},
        equal_count={"n": 5.0, "ece": 0.25},
    ).write(tmp_path)
    content = written.read_bytes()

    def read(content):
        written.write_bytes(content)
        runs = find_runs([tmp_path])
        found, theirs = dataclasses.asdict(runs[0].record), json.loads(content)
        assert theirs.pop("format") == 2
        same(plain(given({key: found[key] for key in theirs})), plain(given(theirs)))
        page = build_page(runs, "damaged")
        for key, value in found["metrics"].items():
            assert key in page or not math.isfinite(value) or key in ("accuracy", "ece")

    fuzz("run.json", content, (damaged_json, damaged_json, damaged_bytes), read)


def test_claims(tmp_path):
    settings = {"SEED": 1, "SOLVER": {"BASE_LR": 0.1, "STEPS": [3, 4]}, "NAME": "x", "FLIP": True, "NONE": None}
    claim(tmp_path, settings)
    (tmp_path / "result").touch()
    path = tmp_path / "settings.json"
    expected = json.loads(path.read_bytes())

    def read(content):
        path.write_bytes(content)
        check_claim(tmp_path, settings, "choose another")
        found = json.loads(content)
        for key in ("format", "settings"):  # the command decides nothing
            same(plain(found[key]), plain(expected[key]))
        assert isinstance(found.get("command", ""), str)

    fuzz("settings.json", path.read_bytes(), (damaged_json, damaged_json, damaged_bytes), read)


def test_calibrators(tmp_path):
    path = tmp_path / "calibrator.json"
    maps = ClassWise((Platt(0.5, 0.1), Platt(2.0, -0.1)), ("cat", "dog"), (30, 7), 20)
    save(OperatingPoints(maps, (0.1, 0.2), (0.3, 0.4)), path)
    score, category = torch.linspace(0, 1, 6, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 0, 1])

    def read(content):
        path.write_bytes(content)
        found = load(path)
        same(plain(json.loads(found.to_json())), plain(json.loads(content)))
        mapped = found(score, category)
        assert ((mapped >= 0) & (mapped <= 1)).all()
        found.keeps(score, category)

    fuzz("calibrator.json", path.read_bytes(), (damaged_json, damaged_json, damaged_bytes), read)


# --- configs -----------------------------------------------------------------------------------------------------


def leaves(value, place=()):
    """The values in nested dicts by the keys that lead there."""
    for key, child in value.items():
        if isinstance(child, dict):
            yield from leaves(child, (*place, key))
        else:
            yield (*place, key), child


def at(content, place):
    for key in place:
        content = content[key]
    return content


EXPERIMENT = b"""# a comment
data: {name: digits, validation: 0.25, limit: 100}
teacher:
  training: &schedule {epochs: 2, lr: 0.01, nesterov: true, milestones: [1]}
  seeds: [0, 1]
students:
  one: {method: ddn, training: *schedule}
evaluation: {edges: left}
"""


def test_configs_of_experiments(tmp_path):
    path = tmp_path / "digits.yaml"

    def read(content):
        path.write_bytes(content)
        found = dataclasses.asdict(load_config(path))
        for place, value in leaves(yaml.safe_load(content) or {}):
            if value is None or place == ("base",) or "method" in place:
                continue  # null takes a key away, and a method is an object of its own
            ours = at(found, tuple(map(str, place)))
            if isinstance(ours, tuple):
                assert list(ours) == (value if isinstance(value, list) else [value])
            elif not isinstance(ours, dict):
                assert same(ours, type(ours)(value)) is None and isinstance(ours, bool) == isinstance(value, bool)

    fuzz("YAML of an experiment", EXPERIMENT, (damaged_yaml, damaged_yaml, damaged_bytes), read)


DETECTOR = b"""# a comment
_BASE_: base.yaml
MODEL:
  META_ARCHITECTURE: DDNRCNN
  ROI_HEADS: {NAME: DDNStandardROIHeads, NUM_CLASSES: 3}
  DDN: {DROPOUT: {RATE: 0.25}}
SOLVER: {BASE_LR: 0.01, STEPS: ()}
TEST: {EXPECTED_RESULTS: [[bbox, AP, 25.1, 4.0]]}
"""


def test_configs_of_detectors(tmp_path):
    pytest.importorskip("detectron2")
    from ddn_detectron2.cli import read_config

    (tmp_path / "base.yaml").write_text("VERSION: 2\nSOLVER: {STEPS: [], MAX_ITER: 9}\n")
    path = tmp_path / "damaged.yaml"

    def read(content):
        path.write_bytes(content)
        check_config(path, "ddn")
        cfg = read_config(str(path))
        for place, value in leaves(yaml.safe_load(content) or {}):
            if place != ("_BASE_",):
                if isinstance(value, str):  # yacs reads words as Python does
                    with contextlib.suppress(ValueError, SyntaxError):
                        value = literal_eval(value)
                ours = at(cfg, place)
                same(
                    list(ours) if isinstance(ours, tuple) else ours, list(value) if isinstance(value, tuple) else value
                )

    fuzz("YAML of a detector", DETECTOR, (damaged_yaml, damaged_yaml, damaged_bytes), read)


# --- tensors -----------------------------------------------------------------------------------------------------


def tensors_in(content):
    """What a safetensors file holds, read as its specification has it."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    kinds = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}
    return {
        name: np.frombuffer(data[slice(*each["data_offsets"])], kinds[each["dtype"]]).reshape(each["shape"])
        for name, each in header.items()
        if name != "__metadata__"
    }


def damaged_header(content, random):
    """A safetensors file whose header is odd, and of the length that it states."""
    (length,) = struct.unpack("<Q", content[:8])
    header = damaged_json(content[8 : 8 + length], random)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def test_checkpoints(tmp_path):
    model = nn.Linear(3, 2)
    save_model(tmp_path, model, {"identity": "x"})
    path = tmp_path / "model.safetensors"

    def read(content):
        path.write_bytes(content)
        load_model(tmp_path, model)
        theirs = tensors_in(content)
        assert theirs.keys() == {"weight", "bias"}
        for name, values in model.state_dict().items():
            assert values.numpy().tobytes() == theirs[name].astype("f4").tobytes()

    fuzz("header of a checkpoint", path.read_bytes(), (damaged_header, damaged_header, damaged_bytes), read)


def test_checkpoints_of_detectors(tmp_path):
    pytest.importorskip("detectron2")
    from ddn_detectron2.engine.checkpoint import SafeCheckpointer

    model = nn.Linear(3, 2)
    path = tmp_path / "model.pth"
    torch.save({"model": model.state_dict()}, path)
    content = path.read_bytes()

    def read(content):
        path.write_bytes(content)
        SafeCheckpointer(model, strict=True).load(str(path))
        assert all(values.isfinite().all() for values in model.parameters())

    fuzz("checkpoint of a detector", content, (damaged_bytes,), read)


def test_target_stores(tmp_path):
    ids = [4, 7, 9]
    write_targets(
        tmp_path, ids, lambda part: [{"z": torch.full((2,), float(i))} for i in part], {"draws": 3}, 2, progress=False
    )
    names = ("manifest.json", "shard-00000.safetensors")
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def read_file(name):
        def read(content):
            (tmp_path / name).write_bytes(content)
            if name.startswith("shard"):  # whoever forges a shard can forge its checksum
                line = f"{hashlib.sha256(content).hexdigest()}  {name}\n"
                (tmp_path / name).with_suffix(".sha256").write_text(line)
            store = TargetStore(tmp_path)
            found = {i: store[i] for i in store}
            assert list(found) == (json.loads(content)["ids"] if name == "manifest.json" else ids)
            theirs = tensors_in(content if name.startswith("shard") else whole[names[1]])
            for position, i in enumerate(list(found)[: store.shard_size]):
                for key, values in found[i].items():
                    assert values.numpy().tobytes() == theirs[f"{position}/{key}"].tobytes()

        return read

    def signed(content, random):
        """A damaged manifest with the checksum that fits it."""
        manifest = json.loads(damaged_json(json.dumps(json.loads(content) | {"sha256": ""}).encode(), random))
        if not isinstance(manifest, dict):
            return json.dumps(manifest).encode()
        manifest.pop("sha256", None)
        text = json.dumps(manifest, sort_keys=True)
        return json.dumps(manifest | {"sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()

    def forged(content, random):
        with contextlib.suppress(ValueError, RecursionError):
            return signed(content, random)
        return damaged_json(content, random)

    fuzz("manifest of a store", whole[names[0]], (forged, forged, damaged_json, damaged_bytes), read_file(names[0]))
    (tmp_path / names[0]).write_bytes(whole[names[0]])
    fuzz("shard of a store", whole[names[1]], (damaged_header, damaged_bytes), read_file(names[1]))


# --- what is kept of images ---------------------------------------------------------------------------------------


def arrays_in(content):
    """What an npz file holds, each array read as its specification has it."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        for name in file.namelist():
            array = file.read(name)
            assert array[:8] == b"\x93NUMPY\x01\x00"
            (length,) = struct.unpack("<H", array[8:10])
            header = literal_eval(array[10 : 10 + length].decode("latin1"))
            values = np.frombuffer(array, header["descr"], math.prod(header["shape"]), offset=10 + length)
            found[name.removesuffix(".npy")] = values.reshape(header["shape"], order="FC"[not header["fortran_order"]])
    return found


def odd_array(array, random):
    """Like `array`, but of another type, shape or content."""
    kinds = ("f2", "f4", "f8", ">f8", "i1", "i8", "u8", "?", "c8", "O", "U3", "M8[s]", "V4")
    value = random.choice((np.nan, np.inf, -np.inf, -1, 2, 1e30, 255))
    with np.errstate(all="ignore"):
        return random.choice(
            (
                lambda: np.zeros(array.shape, random.choice(kinds)),
                lambda: array.astype(random.choice(("f4", "f8", "i4", "i8", "u4", "?"))),
                lambda: array[..., : random.randrange(3)],
                lambda: array[: random.randrange(3)],
                lambda: array[..., None],
                lambda: array[::-1],
                lambda: np.concatenate((array, array)),
                lambda: np.where(np.arange(array.size).reshape(array.shape) == random.randrange(9), value, array),
                lambda: np.where(array == array, value, array).astype(array.dtype),
            )
        )()


def damaged_arrays(content, random):
    """An npz file with an array that is odd, absent, another's, or damaged inside, and of a checksum that fits."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = random.choice(sorted(members))
    change = random.choice(("odd", "odd", "odd", "remove", "swap", "bytes", "json"))
    if change == "odd":
        odd = io.BytesIO()
        np.save(odd, odd_array(np.load(io.BytesIO(members[name])), random))
        members[name] = odd.getvalue()
    elif change == "remove":
        del members[name]
    elif change == "swap":
        members[name] = members[random.choice(sorted(members))]
    elif change == "bytes":
        members[name] = damaged_bytes(members[name], random)
    else:
        text = damaged_json(np.load(io.BytesIO(members["plain.npy"])).tobytes(), random)
        odd = io.BytesIO()
        np.save(odd, np.frombuffer(text, np.uint8))
        members["plain.npy"] = odd.getvalue()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, member in members.items():
            file.writestr(name, member)
    return made.getvalue()


def three_kinds():
    """Images of every task, small."""
    truth, settings = read_ground_truth(TRUTH), Settings((0.5,))
    found = [each | {"box_std": [1, 2, 1, 2]} for each in FOUND]
    found = evaluate(truth, match_images(truth, read_detections(found, truth), settings), settings)
    ids, score = ["a", "b"], np.float64([0.3, np.inf])
    yield ClassifiedImages(ids, np.float32([0.9, 0.6]), np.array([True, False]), {"nll_true": score})
    yield DetectedImages.of(found, 0.5)
    levels = pixel_levels(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), torch.tensor([0.1, 0.0, 0.7]), 2)
    rows = [{**ranking_row(levels), "class_count": np.int64([2, 1]), "class_sums": {"mUnc": np.ones(2)}}] * 2
    cells = {"count": np.ones((2, 1035), np.uint32), "excess": np.zeros((2, 1035), np.float32)}
    images = SegmentedImages.of_rows(ids, rows, removed=(0.0, 0.5))
    yield dataclasses.replace(images, **cells, scores={"brier": np.ones(2)})


def test_images_of_a_row(tmp_path):
    def read(content):
        (tmp_path / IMAGES).write_bytes(content)
        images, resamples = read_images(tmp_path), read_resamples(tmp_path)
        theirs = arrays_in(content)
        kept = json.loads(theirs.pop("plain").tobytes())
        kept.pop("kind")
        for name, value in kept.items():
            ours = getattr(images, name)
            same(plain(list(ours) if isinstance(ours, tuple) else ours), plain(value))
        for name, values in theirs.items():
            whole, _, part = name.partition(".")
            if whole == "resamples":
                assert resamples[part].numpy().tobytes() == values.astype("f8").tobytes()
            else:
                ours = getattr(images, whole)[part] if part else getattr(images, whole)
                assert (ours.dtype, ours.shape, ours.tobytes()) == (values.dtype, values.shape, values.tobytes())
        for name, value in images.metrics(torch.ones(len(images.ids), 2)).items():
            assert value.shape == (2,), name

    for images in three_kinds():
        write_images(tmp_path, images, {"ece": torch.tensor([0.1, 0.2])})
        content = (tmp_path / IMAGES).read_bytes()
        fuzz(f"images.npz, {type(images).__name__}", content, (damaged_arrays, damaged_arrays, damaged_bytes), read, 3)
