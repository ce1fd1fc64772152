"""What turns a command line into a config: trusted tags, unknown keys, proposals that are elsewhere."""

import pytest
from detectron2 import model_zoo

from ddn_detectron2.cli import check_proposals, read_config
from ddn_detectron2.config import ConfigError


def test_tags_run_where_they_are_trusted(tmp_path):
    made = tmp_path / "made"
    (tmp_path / "code.yaml").write_text(f"OUTPUT_DIR: !!python/object/apply:os.makedirs ['{made}']\n")
    with pytest.raises(ConfigError, match=r"code.yaml: .*could not determine a constructor"):
        read_config(tmp_path / "code.yaml")
    assert not made.exists()
    read_config(tmp_path / "code.yaml", trusted=True)
    assert made.exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("SOLVER: {BASE_LRR: 1}", "there is no key SOLVER.BASE_LRR; did you mean SOLVER.BASE_LR"),
        ("MODEL: {POINT_HEAD: {NAME: a}}", "there is no key MODEL.POINT_HEAD; if a project .* PointRend .* Python"),
    ],
)
def test_keys_that_there_are_not(tmp_path, text, sentence):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"a.yaml: {sentence}"):
        read_config(tmp_path / "a.yaml")


def test_proposals_are_not_downloaded(tmp_path):
    cfg = model_zoo.get_config("COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml")
    with pytest.raises(ConfigError, match=r"proposals from detectron2://.*name it in DATASETS.PROPOSAL_FILES_TRAIN$"):
        check_proposals(cfg)
    (tmp_path / "boxes.pkl").touch()
    cfg.DATASETS.PROPOSAL_FILES_TRAIN = cfg.DATASETS.PROPOSAL_FILES_TEST = (str(tmp_path / "boxes.pkl"),)
    check_proposals(cfg)
    check_proposals(model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"))
