"""Cost of Monte-Carlo passes and of distillation for full-size detectors, as ratios to a plain one.

Random weights, one image of 480 x 640, 300 proposals.
"""

import sys

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import setup_logger
from timing import Contender, argument_parser, race, take_step

from ddn_detectron2.convert import to_ddn
from ddn_detectron2.teaching.store import attach_teacher
from ddn_detectron2.teaching.target_matching import TEACHER_LOGITS

CONFIGS = {"C4": "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", "FPN": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"}
POSITIONS = {"C4": ("block2", "residual", "predictor"), "FPN": ("fc1", "predictor")}


def config(name: str, proposals: int) -> CfgNode:
    """A plain config of the model zoo."""
    cfg = model_zoo.get_config(CONFIGS[name])
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = proposals
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 128
    # random scores are all alike: without a threshold every box is a detection, and NMS is all that is measured
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.5
    return cfg


def build(cfg: CfgNode) -> torch.nn.Module:
    """The same random weights each time, under which features keep their size, so that there are proposals."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for module in model.modules():
        if isinstance(module, BottleneckBlock):
            module.conv3.norm.weight.fill_(0.1)  # each block adds little to what it is given
    return model


def forward(model: torch.nn.Module) -> Contender:
    """Inference on the image."""

    def run(inputs: list[dict]) -> float:
        with torch.no_grad():
            return float(len(model(inputs)[0]["instances"]))

    return run


def passes(name: str, proposals: int) -> dict[str, Contender]:
    """One forward of the baseline, of the student, and ten Monte-Carlo passes, shared and naive."""
    plain = config(name, proposals)
    model = build(plain)
    images = model.preprocess_image(one_image())
    with torch.no_grad():
        boxes = len(model.proposal_generator(images, model.backbone(images.tensor))[0][0])
    if boxes != proposals:
        raise RuntimeError(f"{boxes} proposals, not {proposals}: nothing of what is timed would mean anything")
    contenders = {"baseline, one pass": forward(model), "student, one pass": forward(build(to_ddn(plain)))}
    for position in POSITIONS[name]:
        cfg = to_ddn(plain)
        cfg.MODEL.DDN.TARGETS.AVERAGE = "probs"
        cfg.MODEL.DDN.DROPOUT.POSITIONS = (position,)
        cfg.MODEL.DDN.TEST.MC_SAMPLES = 10
        contenders[f"10 passes, dropout {position}"] = forward(build(cfg))
    return contenders


def steps(name: str, proposals: int) -> dict[str, Contender]:
    """A step of plain fine-tuning with a frozen trunk, and of distillation with stored and with online targets."""
    cfg = to_ddn(config(name, proposals))
    contenders = {}
    for kind in ("ground truth alone", "stored targets", "online teacher"):
        model = build(cfg)
        if kind == "online teacher":
            attach_teacher(cfg, model)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)
        model.train()

        def step(inputs: list[dict], model=model, optimizer=optimizer, stored=kind == "stored targets") -> float:
            truth = inputs[0]["instances"]
            if truth.has(TEACHER_LOGITS):  # of the contender before
                truth.remove(TEACHER_LOGITS)
            if stored:
                truth.set(TEACHER_LOGITS, torch.zeros(len(truth), 81))
            with EventStorage():
                return take_step(optimizer, sum(model(inputs).values()))

        contenders[kind] = step
    return contenders


def one_image() -> list[dict]:
    """A batch of one image with eight objects."""
    random = np.random.RandomState(0)
    corners = random.uniform(0, (500, 380), (8, 2))
    boxes = np.concatenate([corners, corners + random.uniform(30, 100, (8, 2))], axis=1)
    truth = Instances((480, 640))
    truth.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
    truth.gt_classes = torch.arange(8)
    image = torch.from_numpy(random.uniform(0, 255, (3, 480, 640)).astype(np.float32))
    return [{"image": image, "height": 480, "width": 640, "instances": truth}]


def main() -> None:
    """Run the benchmarks that are asked for."""
    parser = argument_parser(__doc__, rounds=5)
    parser.add_argument("--proposals", type=int, default=300, help="boxes per image")
    parser.add_argument("--models", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    setup_logger(name="fvcore").setLevel("ERROR")
    for name in args.models:
        title = f"R50-{name}, one image, {args.proposals} proposals"
        race(f"{title}: inference", passes(name, args.proposals), (one_image(),), args.rounds)
        race(f"{title}: a training step", steps(name, args.proposals), (one_image(),), args.rounds)


if __name__ == "__main__":
    sys.exit(main())
