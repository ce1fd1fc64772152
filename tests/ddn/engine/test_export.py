"""What is exported runs in plain Detectron2, in a process that never imports this package."""

import subprocess
import sys
import textwrap

import pytest
import torch
from detectron2.structures import Boxes
from tiny_detectors import HEADS, ddn_model, images, tiny_config

from ddn_detectron2.engine.export import export_plain, export_torchscript
from uncertainty_core.recalibration import Temperature, load, save

PLAIN = textwrap.dedent(
    """
    import sys
    import torch

    torch.set_num_threads(1)
    sys.modules["ddn_detectron2"] = sys.modules["uncertainty_core"] = None  # an import of these fails
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    for folder in sys.argv[1:]:
        cfg = get_cfg()
        cfg.merge_from_file(f"{folder}/config.yaml")
        model = build_model(cfg).eval()
        DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
        with torch.no_grad():
            found = [result["instances"] for result in model(torch.load(f"{folder}/inputs.pth", weights_only=True))]
        fields = [{k: getattr(v, "tensor", v) for k, v in one.get_fields().items()} for one in found]
        torch.save(fields, f"{folder}/found.pth")
    """
)


def test_deviations_of_boxes_are_left_behind(tmp_path):
    options = ("MODEL.DDN.BOX_STD", True)
    weights, _ = export_plain(tiny_config("FPN", options), ddn_model("FPN", *options), tmp_path)
    assert torch.load(weights, weights_only=True)["model"].keys() == ddn_model("FPN").state_dict().keys()


def test_calibrator_is_written_beside_the_weights_that_lack_it(tmp_path):
    save(Temperature(2.0), tmp_path / "fitted.json")
    cfg = tiny_config("FPN", ("MODEL.DDN.TEST.CALIBRATOR", str(tmp_path / "fitted.json")))
    paths = export_plain(cfg, ddn_model("FPN"), tmp_path / "plain")
    assert [path.name for path in paths] == ["model.pth", "config.yaml", "calibrator.json"]
    assert load(paths[-1]) == Temperature(2.0)


def test_exported_students_are_the_same_without_this_package(tmp_path):
    folders = {name: tmp_path / name for name in HEADS}
    for name, folder in folders.items():
        weights, config = export_plain(tiny_config(name), ddn_model(name), folder)
        assert "DDN" not in config.read_text()
        assert weights.exists()
        torch.save(images(), folder / "inputs.pth")
    subprocess.run([sys.executable, "-c", PLAIN, *map(str, folders.values())], check=True)
    for name, folder in folders.items():
        with torch.no_grad():
            own = [result["instances"] for result in ddn_model(name)(images())]
        assert sum(map(len, own)) > 0
        for one, other in zip(own, torch.load(folder / "found.pth", weights_only=True), strict=True):
            assert one.get_fields().keys() == other.keys()
            for field, values in one.get_fields().items():
                assert torch.equal(values.tensor if isinstance(values, Boxes) else values, other[field]), (name, field)


def test_torchscript_where_detectron2_can(tmp_path):
    from PIL import Image

    inputs = images(1)
    picture = inputs[0]["image"].permute(1, 2, 0).byte().numpy()
    Image.fromarray(picture).save(tmp_path / "image.png")
    cfg, model = tiny_config("FPN"), ddn_model("FPN")
    try:
        import detectron2.export  # noqa: F401
    except ImportError:
        with pytest.raises(RuntimeError, match="cannot export TorchScript"):
            export_torchscript(cfg, model, tmp_path / "image.png", tmp_path / "model.ts")
        return
    traced = torch.jit.load(export_torchscript(cfg, model, tmp_path / "image.png", tmp_path / "model.ts"))
    image = torch.as_tensor(picture[:, :, ::-1].astype("float32").transpose(2, 0, 1).copy())  # Detectron2's BGR
    with torch.no_grad():
        own = model.inference([{"image": image}], do_postprocess=False)[0]
        outputs = traced(image)
    assert any(torch.equal(own.scores, output) for output in outputs if isinstance(output, torch.Tensor))
