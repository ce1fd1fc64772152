"""An exported detector finds in onnxruntime, from the bytes of an image, what Detectron2 finds."""

import re

import numpy as np
import pytest
import torch
from forked_tools import run_tool
from photographs import photographs
from PIL import Image
from tiny_detectors import HEIGHT, NUM_CLASSES, WIDTH, ddn_model

from ddn_detectron2.inference.graph import DetectorGraph, detector_graph
from uncertainty_core.errors import UserError
from uncertainty_core.export import Description, write_onnx
from uncertainty_core.io.files import write_png
from uncertainty_core.recalibration import ClassWise, Isotonic, MatrixScaling, save

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

STEPS = Isotonic((0.05, 0.2, 0.3, 0.6, 0.9), (0.0, 0.1, 0.4, 0.8, 0.9))
CALIBRATORS = {
    "scores": ClassWise((STEPS,) * NUM_CLASSES, tuple("abcd"), (30,) * NUM_CLASSES, 20),
    "probabilities": MatrixScaling(tuple(tuple(0.3 * (i == j) for j in range(5)) for i in range(5)), (0.1,) * 5),
}
CLASS_PROBS, BOX_STD = ("MODEL.DDN.TEST.CLASS_PROBS", True), ("MODEL.DDN.BOX_STD", True)


@torch.no_grad()
def detected(model, image):
    """What Detectron2 finds in the image as it reads it, by the names of outputs."""
    bgr = image[0].permute(2, 0, 1).flip(0)
    found = model.inference([{"image": bgr.float()}], do_postprocess=False)[0].get_fields()
    names = {"pred_boxes": "boxes", "pred_classes": "classes"}
    values = {names.get(name, name): getattr(value, "tensor", value).numpy() for name, value in found.items()}
    return {name: value for name, value in values.items() if not name.startswith("pred_") and name != "score_before"}


@pytest.mark.parametrize(
    ("name", "calibrator", "options"),
    [
        ("C4", None, CLASS_PROBS),
        ("Cascade", "scores", ()),
        ("MaskFPN", "probabilities", CLASS_PROBS + BOX_STD),
    ],
)
def test_onnxruntime_finds_what_detectron2_finds(name, calibrator, options, tmp_path):
    if calibrator is not None:
        save(CALIBRATORS[calibrator], tmp_path / "calibrator.json")
        options = (*options, "MODEL.DDN.TEST.CALIBRATOR", str(tmp_path / "calibrator.json"))
    model = ddn_model(name, *options)
    graph = detector_graph(model, tuple("abcd"), photographs(1, (HEIGHT, WIDTH)))
    write_onnx(graph, tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for image in (photographs(1, (HEIGHT, WIDTH)), photographs(1, (112, 81))):
        expected = detected(model, image)
        found = dict(zip(names, session.run(None, {"image": image.numpy()}), strict=True))
        assert found.keys() == expected.keys()
        assert len(found["scores"]) == len(expected["scores"]) > 2
        assert np.array_equal(found["classes"], expected["classes"])
        for field in names:
            tolerance = 1e-2 if field in ("boxes", "box_std") else 1e-4  # of pixels, of probabilities
            assert np.abs(found[field] - expected[field]).max() < tolerance, field
    assert Description.from_metadata(session.get_modelmeta().custom_metadata_map) == graph.description


def test_many_passes_are_no_graph():
    with pytest.raises(UserError, match="set MC_SAMPLES 0"):
        detector_graph(ddn_model("FPN", "MODEL.DDN.TEST.MC_SAMPLES", 3), tuple("abcd"), photographs(1, (HEIGHT, WIDTH)))


def test_tool_traces_a_picture_and_tries_the_file(small, tmp_path):
    write_png(tmp_path / "a.png", Image.fromarray(photographs(1, (HEIGHT, WIDTH))[0].numpy()))
    words = ("--config-file", small.ddn, "--image", "a.png", "--output", "exported", "MODEL.WEIGHTS", small.weights)
    outcome = run_tool("export", *words, folder=tmp_path)
    assert outcome.code == 0, outcome.err
    assert "image: uint8 (1, H, W, 3): RGB" in outcome.out
    assert float(re.search(r"differ by at most (\S+)", outcome.out)[1]) < 1e-4
    assert (tmp_path / "exported/model.onnx").is_file()


def test_detectors_without_roi_heads_are_refused():
    with pytest.raises(UserError, match="Linear has no ROI heads"):
        DetectorGraph(torch.nn.Linear(1, 1))
