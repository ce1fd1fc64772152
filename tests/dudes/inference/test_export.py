"""An exported segmentor computes in onnxruntime, from the bytes of an image, what mmsegmentation predicts."""

import json
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from forked_tools import ROOT, run_tool
from mmengine.config import Config, ConfigDict
from mmseg.apis import inference_model, init_model
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from photographs import photographs
from PIL import Image
from tiny_segmentors import BINARY, NUM_CLASSES, build, segmentor_config, student_config

from dudes_mmseg.cli import ConfigError
from dudes_mmseg.inference.any_size import AnySizePool
from dudes_mmseg.inference.export import segmentor_graph
from dudes_mmseg.inference.predict import load_student
from uncertainty_core.export import ONNX, Description, ExportError, write_onnx, write_torchscript, write_tried
from uncertainty_core.recalibration import ClassWise, Isotonic, MatrixScaling, VectorScaling, load

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

SIZE, OTHER_SIZE = (56, 64), (72, 97)
FIELDS = {"uncertainty": 0, "entropy": 0, "mutual_information": 0, "error": 0, "class_uncertainty": slice(None)}


def inline(calibrator):
    return ConfigDict(json.loads(calibrator.to_json()))


MATRIX = MatrixScaling(
    tuple(tuple(0.8 * (i == j) + 0.1 * ((i + j) % 2) for j in range(4)) for i in range(4)), (0.0, 0.1, 0.2, 0.3)
)
STEPS = Isotonic((0.1, 0.3, 0.5, 0.52, 0.9), (0.0, 0.1, 0.4, 0.8, 0.9))
OF_CLASSES = ClassWise((STEPS,) * NUM_CLASSES, tuple("abcd"), (30,) * NUM_CLASSES, 20)
TWO_WINDOWS = {"mode": "slide", "crop_size": (56, 40), "stride": (56, 24)}
OUTPUTS = {"outputs": ("std", "entropy", "mutual_information", "error")}
BGR = {"type": "SegDataPreProcessor", "mean": [120.0, 110.0, 100.0], "std": [60.0, 50.0, 40.0], "pad_val": 1.5}
PADDED = BGR | {"test_cfg": {"size_divisor": 32}, "bgr_to_rgb": True}
BOTH = {"calibrator": inline(MATRIX), "uncertainty_calibrator": inline(OF_CLASSES)}
CONFIGS = {
    "student": student_config("SepASPP"),
    "calibrated cascade": student_config("OCR", uncertainty_head=OUTPUTS, **BOTH),
    "deviation of each class": student_config(data_preprocessor=PADDED, uncertainty_head={"num_outputs": 4}, **BOTH),
    "two classes": student_config(**BINARY, calibrator=inline(VectorScaling((0.5, 0.8), (0.0, 0.4)))),
    "plain": segmentor_config("PSP", data_preprocessor=BGR),
    "upsampling": student_config("FPN"),
    "windows": student_config(test_cfg=TWO_WINDOWS),
}


@torch.no_grad()
def build_decided(config):
    """A segmentor with random weights that predicts several classes."""
    model = build(config)
    head = model.decode_head[-1] if isinstance(model.decode_head, torch.nn.ModuleList) else model.decode_head
    logits = []
    handle = head.conv_seg.register_forward_hook(lambda *call: logits.append(call[2]))
    predicted(model, photographs(1, SIZE)[0])
    handle.remove()
    # every class is as likely as any other
    scale = 3 / logits[0].std((0, 2, 3))
    head.conv_seg.weight *= scale[:, None, None, None]
    head.conv_seg.bias.copy_(scale * (head.conv_seg.bias - logits[0].mean((0, 2, 3))))
    return model


@torch.no_grad()
def predicted(model, image):
    """What mmsegmentation's own test step makes of the image as OpenCV reads it, by the names of outputs."""
    bgr = image.permute(2, 0, 1).flip(0)
    size = tuple(image.shape[:2])
    sample = SegDataSample(metainfo={"ori_shape": size, "img_shape": size, "pad_shape": size})
    found = model.test_step({"inputs": [bgr], "data_samples": [sample]})[0]
    logits = found.seg_logits.data
    probabilities = logits.softmax(0) if len(logits) > 1 else torch.cat((1 - logits, logits))
    outputs = {"classes": found.pred_sem_seg.data[0], "probabilities": probabilities}
    return outputs | {
        name: found.get(f"pred_{name}").data[at] for name, at in FIELDS.items() if f"pred_{name}" in found
    }


def check(model, images, found):
    for image, *values in zip(images, *found.values(), strict=True):
        expected = predicted(model, image)
        assert expected.keys() == found.keys()
        for name, value in zip(found, values, strict=True):
            assert value.shape == tuple(expected[name].shape), name
            if name == "classes":
                assert np.array_equal(value, expected[name].numpy())
            else:
                assert np.abs(value - expected[name].numpy()).max() < 1e-4, name


@pytest.mark.parametrize("name", CONFIGS)
def test_onnxruntime_computes_what_mmsegmentation_predicts(name, tmp_path):
    model = build_decided(CONFIGS[name])
    graph = segmentor_graph(model, tuple("abcd"), SIZE, any_size=name != "windows")
    write_onnx(graph, tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for images in (photographs(2, SIZE), photographs(1, SIZE if name == "windows" else OTHER_SIZE)):
        found = dict(zip(names, session.run(None, {"image": images.numpy()}), strict=True))
        check(model, images, found)
        assert len(np.unique(found["classes"])) > 1
    description = Description.from_metadata(session.get_modelmeta().custom_metadata_map)
    assert description == graph.description
    assert list(description.outputs) == names


def test_torchscript_computes_the_same(tmp_path):
    model = build(CONFIGS["calibrated cascade"])
    graph = segmentor_graph(model, tuple("abcd"), SIZE)
    write_torchscript(graph, tmp_path / "model.ts")
    files = {"metadata.json": ""}
    loaded = torch.jit.load(tmp_path / "model.ts", _extra_files=files)
    images = photographs(2, OTHER_SIZE)
    with torch.no_grad():
        found = [values.numpy() for values in loaded(images)]
    check(model, images, dict(zip(graph.description.outputs, found, strict=True)))
    assert Description.from_metadata(json.loads(files["metadata.json"])) == graph.description


def test_what_onnx_lacks_is_named(tmp_path):
    # this head calls the function, for which no module can be put in place
    with pytest.raises(ExportError, match=r"^model.decode_head.acm_modules.0 \(ACM\) cannot be exported to ONNX 17: "):
        write_onnx(segmentor_graph(build(student_config("APC")), tuple("abcd"), SIZE), tmp_path / "model.onnx")


def test_one_size_where_a_network_has_no_other(tmp_path):
    # this head pads to a multiple, by a number that it computes from the example's size
    make = partial(segmentor_graph, build(student_config("ISA")), tuple("abcd"), SIZE)
    written = write_tried(ONNX, make, tmp_path, photographs(1, OTHER_SIZE))
    assert written.one_size == "the network fixes the size of its feature maps when it is traced"
    assert written.graph.description.input == "uint8 (B, 56, 64, 3): RGB, resized as at test time"
    assert max(written.difference.values()) < 1e-4
    (image,) = ort.InferenceSession(tmp_path / "model.onnx").get_inputs()
    assert image.shape == ["batch", 56, 64, 3]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A folder with student.py and student.pth, and the student itself."""
    folder = tmp_path_factory.mktemp("student")
    (folder / "photos").mkdir()
    loader = {"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}
    model_config = student_config(data_preprocessor=PADDED, **BOTH)
    dataset = {"type": "BaseSegDataset", "metainfo": {"classes": list("abcd")}, "pipeline": list(loader)}
    config = {"model": model_config, "test_dataloader": {"batch_size": 1, "dataset": dataset}, "default_scope": "mmseg"}
    Config(config).dump(str(folder / "student.py"))
    model = build_decided(model_config)
    torch.save({"state_dict": model.state_dict()}, folder / "student.pth")
    Image.fromarray(photographs(1, OTHER_SIZE)[0].numpy()).save(folder / "photos/a.png")
    return folder, model


def export(folder, *flags):
    """Run the tool; what it printed."""
    words = ("--task", "segmentation", "student.py", "student.pth", "--size", *SIZE, "--output", "exported", *flags)
    outcome = run_tool("export", *words, folder=folder)
    assert outcome.code == 0, outcome.err
    return outcome.out


def test_examples_run_the_exported_file_without_torch(student):
    folder, model = student
    out = export(folder)
    assert "image: uint8 (B, H, W, 3): RGB, resized as at test time" in out
    assert float(re.search(r"differ by at most (\S+)", out)[1]) < 1e-4
    found = predicted(model, photographs(1, OTHER_SIZE)[0])
    without_torch = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path(sys.argv.pop(1))"

    def example(name, *words):
        command = [
            sys.executable,
            "-c",
            without_torch,
            ROOT / f"docs/examples/{name}.py",
            "exported/model.onnx",
            *words,
        ]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout

    doubt = 1 - found["probabilities"].max(0).values.mean().item()
    assert example("onnx_folder", "photos", "0.1") == f"a.png: doubt {doubt:.3f}, for a person\n"
    expected = [
        f"{name}: {where.float().mean():.1%} of the image, uncertainty {found['uncertainty'][where].mean():.3f}"
        for number, name in enumerate("abcd")
        if (where := found["classes"] == number).any()
    ]
    assert example("onnx_image", "photos/a.png").splitlines() == expected


def test_teachers_are_refused():
    with pytest.raises(ConfigError, match="DeepEnsembleSegmentor is a teacher, which needs many passes"):
        load_student(Config({"model": {"type": "DeepEnsembleSegmentor"}}), "member.pth")


def test_plain_students_are_mmsegmentations_own(student, monkeypatch):
    folder, model = student
    export(folder, "--format", "plain")
    plain = init_model(str(folder / "exported/config.py"), str(folder / "exported/model.pth"), device="cpu")
    assert type(plain) is EncoderDecoder
    assert plain.dataset_meta["classes"] == tuple("abcd")
    image = photographs(1, OTHER_SIZE)[0].numpy()[..., ::-1]
    monkeypatch.setattr(model, "calibrators", ())  # which plain models lack, so they come as files
    found = inference_model(plain, image).seg_logits.data.softmax(0)
    assert torch.equal(found, predicted(model, photographs(1, OTHER_SIZE)[0])["probabilities"])
    assert load(folder / "exported/calibrator.json") == MATRIX
    assert load(folder / "exported/uncertainty_calibrator.json") == OF_CLASSES


@pytest.mark.parametrize("size", [(7, 5), (6, 12), (3, 4)])
def test_pooling_of_any_size_is_torch_own(size):
    x = torch.rand(2, 3, *size)
    for bins in ((1, 2), (3, 3), (6, 2)):
        expected = torch.nn.functional.adaptive_avg_pool2d(x, bins)
        assert torch.allclose(AnySizePool(bins)(x), expected, atol=1e-6)
