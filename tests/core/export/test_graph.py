"""Graphs on disk: what is in the files, and what is said of networks that cannot be one."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from uncertainty_core.errors import UserError
from uncertainty_core.export import (
    ONNX,
    TORCHSCRIPT,
    Description,
    ExportError,
    Graph,
    difference,
    noise,
    versions_of,
    write_onnx,
    write_torchscript,
    write_tried,
)
from uncertainty_core.export.parity import _difference

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

OUTPUTS = {"mean": "of the pixels (B,)", "brightest": "its number (B,)"}


class Brightness(nn.Module):
    """The mean brightness, and the number of the brightest pixel; `layer` comes before, on (B, 3, H, W)."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, image):
        pixels = self.layer(image.permute(0, 3, 1, 2).float() / 255).flatten(1)
        return pixels.mean(1), pixels.argmax(1)


class FixedSize(nn.Module):
    """Looks at as many rows as the example has."""

    def forward(self, x):
        return x[:, :, : int(x.shape[2])]


class Unknown(nn.Module):
    """Uses what ONNX has no operator for."""

    def forward(self, x):
        return torch.special.bessel_j0(x)


class MakesKernels(nn.Module):
    """Convolves an image with itself, whose size ONNX must know beforehand."""

    def __init__(self):
        super().__init__()
        self.bright = nn.ReLU()

    def forward(self, x):
        bright = self.bright(x)
        return nn.functional.conv2d(bright, bright[:1])


class Broken(nn.Module):
    """Does not take what it is given."""

    def forward(self, x):
        return x.view(7, -1, 11)


def graph(layer, any_size=True):
    """A graph that is traced on an image of 6 x 8 pixels."""
    axes = {0: "batch"}
    image_axes = axes | ({1: "height", 2: "width"} if any_size else {})
    described = Description(
        "brightness", ("a", "b"), "images", OUTPUTS, "0" * 64, versions=versions_of("torch", "none")
    )
    return Graph(Brightness(layer), noise(6, 8), {"image": image_axes, "mean": axes, "brightest": axes}, described)


def test_onnx_file_computes_and_describes_itself(tmp_path):
    made, path = graph(nn.Identity()), tmp_path / "new/model.onnx"
    write_onnx(made, path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = np.concatenate([noise(5, 7), noise(5, 7).flip(1)])
    mean, brightest = session.run(list(OUTPUTS), {"image": images})
    flat = images.transpose(0, 3, 1, 2).reshape(2, -1)
    assert np.allclose(mean, flat.mean(1) / 255, atol=1e-6)
    assert np.array_equal(brightest, flat.argmax(1))
    described = Description.from_metadata(session.get_modelmeta().custom_metadata_map)
    assert described == made.description
    assert list(described.versions) == ["torch"]
    assert onnx.load(path).opset_import[0].version == 17
    onnx.checker.check_model(onnx.load(path))


def test_torchscript_file_does_too(tmp_path):
    made = graph(nn.Identity())
    write_torchscript(made, tmp_path / "model.ts")
    files = {"metadata.json": ""}
    loaded = torch.jit.load(tmp_path / "model.ts", _extra_files=files)
    for one, other in zip(loaded(noise(9, 4)), made.module(noise(9, 4)), strict=True):
        assert torch.equal(one, other)
    assert Description.from_metadata(json.loads(files["metadata.json"])) == made.description


def test_metadata_of_something_else_are_refused():
    with pytest.raises(UserError, match="not those of an exported network"):
        Description.from_metadata({})


def test_what_differs_is_told_by_output(tmp_path):
    path = tmp_path / "model.onnx"
    write_onnx(graph(nn.Identity()), path)
    image = noise(6, 8)
    assert difference(ONNX, graph(nn.Identity()), path, image) == {"mean": pytest.approx(0, abs=1e-6), "brightest": 0}
    # half as bright; the brightest pixel of the negative is another
    halved = difference(ONNX, graph(nn.Threshold(2.0, 0.5)), path, image)
    assert halved["mean"] == pytest.approx(abs(0.5 - image.float().mean().item() / 255), abs=1e-6)
    assert halved["brightest"] == 1
    assert difference(ONNX, graph(nn.Identity()), path, noise(6, 8, 4)) == dict.fromkeys(OUTPUTS, float("inf"))


@pytest.mark.parametrize("kind", [ONNX, TORCHSCRIPT])
def test_any_size_where_that_is_right_else_one(kind, tmp_path):
    any_size = write_tried(kind, lambda any_size: graph(nn.Identity(), any_size), tmp_path, noise(9, 5))
    assert any_size.path.name == f"model{kind.suffix}"
    assert any_size.one_size is None
    written = write_tried(kind, lambda any_size: graph(FixedSize(), any_size), tmp_path, noise(9, 5))
    assert "fixes the size" in written.one_size
    assert written.graph.axes["image"] == {0: "batch"}


class OneImage(nn.Module):
    """Forgets all images but the first when it is traced."""

    def forward(self, x):
        return x.reshape(1 if torch.jit.is_tracing() else len(x), *x.shape[1:])


class Picky(nn.Module):
    """Takes one size alone, in torch itself."""

    def forward(self, x):
        return x + torch.zeros(1, 1, 6, 8)


@pytest.mark.parametrize("kind", [ONNX, TORCHSCRIPT])
def test_number_of_images_is_tried_too(kind, tmp_path):
    with pytest.raises(ExportError, match="computes something else"):
        write_tried(kind, lambda any_size: graph(OneImage(), any_size), tmp_path, noise(9, 5))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [ONNX, TORCHSCRIPT])
def test_networks_that_refuse_other_sizes_give_a_file_for_one(kind, tmp_path):
    assert write_tried(kind, lambda any_size: graph(Picky(), any_size), tmp_path, noise(9, 5)).one_size is not None


def test_empty_layers_are_traced(tmp_path):
    """As the shortcuts of residual networks are."""
    write_tried(ONNX, lambda any_size: graph(nn.Sequential(nn.Sequential()), any_size), tmp_path, noise(9, 5))


def test_differences_of_numbers():
    expected = np.array([1000.0, 2.0])
    assert _difference(expected, expected + 0.05) == pytest.approx(5e-5)  # of pixels, by the largest
    assert _difference(np.array([0.5]), np.array([np.nan])) == np.inf
    assert _difference(np.array([np.inf]), np.array([np.inf])) == 0


def test_file_for_one_size_takes_no_other(tmp_path):
    written = write_tried(ONNX, lambda any_size: graph(FixedSize(), any_size), tmp_path, noise(9, 5))
    assert ort.InferenceSession(written.path).get_inputs()[0].shape == ["batch", 6, 8, 3]
    with pytest.raises(ExportError, match="cannot be exported"):
        write_tried(ONNX, lambda any_size: graph(Unknown(), any_size), tmp_path, noise(9, 5))


@pytest.mark.parametrize("kind", [ONNX, TORCHSCRIPT])
def test_a_file_that_computes_something_else_is_not_kept(kind, tmp_path):
    class Random(nn.Module):
        def forward(self, x):
            return x + torch.rand(x.shape)

    with pytest.raises(ExportError, match=f"^{kind.runtime} computes something else than the network"):
        write_tried(kind, lambda any_size: graph(Random(), any_size), tmp_path, noise(9, 5))
    assert not list(tmp_path.iterdir())


def test_modules_that_stand_in_the_way_are_named(tmp_path):
    with pytest.raises(ExportError, match=r"^layer.0 \(Unknown\) cannot be exported to ONNX 17: .*special_bessel_j0"):
        write_onnx(graph(nn.Sequential(Unknown())), tmp_path / "model.onnx")
    with pytest.raises(
        ExportError, match=r"^layer(.bright)? \(\w+\) cannot be exported to ONNX 17: .*kernel of unknown"
    ):
        write_onnx(graph(MakesKernels()), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"^layer.1 \(Broken\) cannot be traced: shape '\[7, -1, 11\]' is invalid"):
        write_torchscript(graph(nn.Sequential(nn.Identity(), Broken())), tmp_path / "model.ts")
    assert not list(tmp_path.iterdir())


def test_without_onnx_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="pip install onnx onnxruntime"):
        write_onnx(graph(nn.Identity()), tmp_path / "model.onnx")
