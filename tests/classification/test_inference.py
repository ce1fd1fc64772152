"""An exported classifier computes in onnxruntime, from the bytes of images, what was measured of it."""

import json

import numpy as np
import pytest
import torch
from forked_tools import run_tool
from safetensors.torch import load_file

from classification.config import load_config
from classification.experiment import Experiment
from uncertainty_core.recalibration import VectorScaling, load, save

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

VECTOR = VectorScaling(tuple(0.5 + 0.1 * k for k in range(10)), tuple(0.05 * k for k in range(10)))


def export(finished, folder, *flags):
    """Run the tool on a student of the finished experiment; what it printed."""
    words = ("--task", "classification", "--config", finished / "tiny.yaml", "--output", folder / "exported", *flags)
    outcome = run_tool("export", *words, folder=folder)
    assert outcome.code == 0, outcome.err
    return outcome.out


@pytest.fixture
def images(finished):
    """Test images (N, H, W, channels)."""
    return Experiment(load_config(finished / "tiny.yaml"), torch.device("cpu")).test_set.images.permute(0, 2, 3, 1)


def test_onnxruntime_computes_what_was_measured(finished, images, tmp_path):
    out = export(finished, tmp_path, "--network", "DDN")
    assert "image: uint8 (B, 8, 8, 1): gray values" in out
    session = ort.InferenceSession(tmp_path / "exported/model.onnx", providers=["CPUExecutionProvider"])
    measured = load_file(finished / "out/tiny/runs/DDN/seed-0/probabilities.safetensors")["probabilities"].numpy()
    for count in (1, len(images)):
        classes, probabilities, entropy = session.run(
            ["classes", "probabilities", "entropy"], {"image": images[:count].numpy()}
        )
        assert np.abs(probabilities - measured[:count]).max() < 1e-5
        assert np.array_equal(classes, probabilities.argmax(1))
        expected = -(probabilities.astype(float) * np.log(probabilities.astype(float))).sum(1)
        assert np.abs(entropy - expected).max() < 1e-5
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == [str(k) for k in range(10)]


def test_calibrator_is_in_the_graph_and_beside_plain_weights(finished, images, tmp_path):
    save(VECTOR, tmp_path / "calibrator.json")
    export(finished, tmp_path, "--calibrator", tmp_path / "calibrator.json")
    session = ort.InferenceSession(tmp_path / "exported/model.onnx", providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"image": images.numpy()})
    measured = load_file(finished / "out/tiny/runs/baseline/seed-0/probabilities.safetensors")["probabilities"]
    assert np.abs(probabilities - VECTOR(measured).numpy()).max() < 1e-5
    export(finished, tmp_path, "--calibrator", tmp_path / "calibrator.json", "--format", "plain")
    assert load(tmp_path / "exported/calibrator.json") == VECTOR
    trained = load_file(finished / "out/tiny/teacher/seed-0/model.safetensors")
    assert all(torch.equal(trained[name], v) for name, v in load_file(tmp_path / "exported/model.safetensors").items())
