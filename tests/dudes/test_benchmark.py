"""Table 3: time and size of baseline, teacher and student."""

import re

import pytest
import torch
from forked_tools import run_tool
from mmengine.registry import init_default_scope
from tiny_segmentors import HEIGHT, WIDTH, build, segmentor_config, student_config, write_members


@pytest.fixture
def configs(tmp_path):
    """Config files of a baseline, its student, and an ensemble of three."""
    members = write_members(tmp_path, 3)
    models = {
        "baseline": segmentor_config(),
        "teacher": {"type": "DeepEnsembleSegmentor", "segmentor": segmentor_config(), "checkpoints": members},
        "student": student_config(teacher={"type": "DeepEnsembleSegmentor", "segmentor": {}, "checkpoints": "none"}),
    }
    for name, model in models.items():
        plain = model.to_dict() if hasattr(model, "to_dict") else model
        (tmp_path / f"{name}.py").write_text(f"default_scope = 'mmseg'\nmodel = {dict(plain)!r}\n")
    init_default_scope("mmseg")
    return [f"{name}.py" for name in models]


def rows(text):
    """Milliseconds, deviation, ratio and parameters by name."""
    line = re.compile(r"^(\w+) +([\d.]+) ± ([\d.]+) +([\d.]+)x +([\d,]+)$", re.MULTILINE)
    found = {}
    for name, mean, deviation, ratio, parameters in line.findall(text):
        found[name] = (float(mean), float(deviation), float(ratio), int(parameters.replace(",", "")))
    return found


def test_contenders_stand_in_one_table(configs, tmp_path):
    done = run_tool(
        "benchmark_segmentor",
        *configs,
        "--shape",
        HEIGHT,
        WIDTH,
        "--runs",
        3,
        "--warm-up",
        1,
        "--device",
        "cpu",
        folder=tmp_path,
    )
    assert done.code == 0, done.err
    assert f"{HEIGHT} x {WIDTH} pixels, 3 alternating runs, CPU" in done.out
    table = rows(done.out)
    assert list(table) == ["baseline", "teacher", "student"]
    assert table["baseline"][2] == 1
    size = sum(p.numel() for p in build(segmentor_config()).parameters())
    # three members; one more 1x1 convolution on eight channels, and its bias
    assert [row[3] for row in table.values()] == [size, 3 * size, size + 9]


def test_weights_are_those_of_the_checkpoints(configs, tmp_path):
    torch.save({"state_dict": build(segmentor_config()).state_dict()}, tmp_path / "weights.pth")
    torch.save({"state_dict": {}}, tmp_path / "none.pth")
    options = ("--shape", HEIGHT, WIDTH, "--runs", 2, "--device", "cpu", "--checkpoints")
    done = run_tool("benchmark_segmentor", configs[0], *options, "weights.pth", folder=tmp_path)
    assert done.code == 0, done.err
    done = run_tool("benchmark_segmentor", configs[0], *options, "none.pth", folder=tmp_path)
    assert done.code == 2 and "none.pth" in done.err
