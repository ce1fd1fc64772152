"""Teachers: several predictors that are one segmentor, whose uncertainty is how far they differ.

Shapes: B images, C outputs of the segmentors (classes, or 1 for the second of two), H x W pixels of the network's
input, h x w of an image file.
"""

import copy
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from uncertainty_core import derive_seed, dropout_modules
from uncertainty_core.errors import UserError
from uncertainty_core.sampling import mc_dropout
from uncertainty_core.sampling.folds import read_held_out

from .calibration import (
    KEYS,
    Source,
    calibrate,
    calibrate_uncertainty,
    read_calibrators,
    read_uncertainty_calibrator,
)
from .checkpoint import check_fits, check_same_classes, find_checkpoints, load_weights, read_checkpoint
from .consensus import (
    FROM_LABELS,
    Consensus,
    Judgement,
    check_gives_logits,
    checked_outputs,
    joined,
    set_prediction,
    set_uncertainty,
)
from .maps import image_key, to_original

Metainfo = dict[str, Any]


class TeacherSegmentor(BaseModel):
    """Base of teachers. Subclasses define where the passes come from.

    A teacher is in eval mode whatever is asked of it, is neither trained nor initialised, and gets its weights from
    the checkpoints in its config: there is nothing for a runner to load.

    Args:
        segmentor: config of the network whose weights are in `checkpoints`.
        checkpoints: their paths.
        resident: as many copies of the network as there are checkpoints, not one.
        ddof: 1 for the sample standard deviation of the DUDES authors' code, 0 for the population's.
        class_wise: predictions hold `pred_class_uncertainty`, too.
        outputs: the uncertainties in predictions: "std", which is `pred_uncertainty`, "entropy", "mutual_information".
        data_preprocessor: the segmentor's by default.
        calibrator: of the mean probabilities, see `CalibratedMixin`; targets are made without.
        uncertainty_calibrator: from the deviation to the probability of an error, likewise.
    """

    def __init__(
        self,
        segmentor: dict,
        checkpoints: Sequence[str],
        *,
        resident: bool = False,
        ddof: int = 1,
        class_wise: bool = False,
        outputs: Sequence[str] = ("std",),
        data_preprocessor: dict | None = None,
        calibrator: Source | Sequence[Source] | None = None,
        uncertainty_calibrator: Source | None = None,
    ) -> None:
        check_gives_logits(segmentor)
        super().__init__(data_preprocessor or copy.deepcopy(segmentor.get("data_preprocessor")))
        self.checkpoints, self.ddof, self.class_wise = list(checkpoints), ddof, class_wise
        self.outputs = checked_outputs(outputs)
        if unknown := [name for name in self.outputs if name in FROM_LABELS]:
            raise UserError(f'a teacher knows no labels of what it predicts: leave "{unknown[0]}" out of its outputs')
        if any(segmentor.get(key) for key in KEYS):
            raise UserError("members are averaged as they are: give calibrators to the teacher, not to its segmentor")
        # losses of auxiliary heads are for training; a teacher has no use for their weights
        config = {key: value for key, value in segmentor.items() if key != "auxiliary_head"}
        copies = len(checkpoints) if resident else 1
        self.members = nn.ModuleList(MODELS.build(copy.deepcopy(config)) for _ in range(copies))
        read = []
        for number, path in enumerate(self.checkpoints):
            checkpoint = read_checkpoint(path)
            member = self.members[number % copies]
            check_fits(member, checkpoint)
            load_weights(member, checkpoint)
            read.append(checkpoint._replace(weights={}))
        check_same_classes(read)
        self.calibrators = read_calibrators(calibrator, self.out_channels)
        self.uncertainty_calibrator = read_uncertainty_calibrator(uncertainty_calibrator, self.out_channels)
        self.train()

    def passes(self, inputs: Tensor, metainfo: list[Metainfo]) -> Iterator[Tensor]:
        """For each predictor the segmentation logits (B, C, H, W) of `inputs` (B, 3, H, W)."""
        raise NotImplementedError

    def judges(self, image: Metainfo) -> Collection[int] | None:
        """The numbers of the predictors that are asked about an image; None for all."""
        return None

    @property
    def decode_head(self) -> nn.Module:
        """The (last) decode head of a member."""
        head = self.members[0].decode_head
        return head[-1] if isinstance(head, nn.ModuleList) else head

    @property
    def out_channels(self) -> int:
        """C."""
        return self.decode_head.out_channels

    @property
    def num_classes(self) -> int:
        """How many classes are told apart: C, or 2 where C is 1."""
        return self.decode_head.num_classes

    @property
    def align_corners(self) -> bool:
        """How maps are resized."""
        return self.decode_head.align_corners

    def train(self, mode: bool = True) -> "TeacherSegmentor":
        """Stay in eval mode."""
        return super().train(False)

    def init_weights(self) -> None:
        """Keep the weights of the checkpoints."""

    def forward(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None, mode: str = "tensor"
    ) -> list[SegDataSample] | Tensor:
        """`mode` "predict" as `predict`; "tensor" gives the `seg_logits` of the consensus (B, C, H, W)."""
        if mode == "predict":
            return self.predict(inputs, data_samples)
        if mode == "tensor":
            return self.judge(inputs, data_samples).prediction.seg_logits
        raise UserError(f"{type(self).__name__} is not trained: train its members, and give it as a student's teacher")

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Predictions with the fields of a student's: of the mean probabilities, at each image's own size (h, w).

        Members are averaged where each of them would give its own prediction: after it is resized to h x w.
        """
        samples = [SegDataSample() for _ in inputs] if data_samples is None else data_samples
        metainfo = _metainfo(inputs, data_samples)
        consensus = [self._consensus(self.outputs) for _ in samples]
        judges = [self.judges(meta) for meta in metainfo]
        for number, logits in enumerate(self.passes(inputs, metainfo)):
            for of_image, asked, image, meta in zip(consensus, judges, logits.split(1), metainfo, strict=True):
                if asked is None or number in asked:
                    of_image.update(to_original(image, meta, self.align_corners))
        for sample, of_image in zip(samples, consensus, strict=True):
            (seg_logits, classes), maps = of_image.result(self.class_wise)
            set_prediction(sample, seg_logits[0], classes[0])
            set_uncertainty(sample, {name: values[0] for name, values in maps.items()})
            calibrate_uncertainty(sample, self.uncertainty_calibrator)
            calibrate(sample, self.calibrators, self.decode_head.threshold)
        return samples

    @torch.no_grad()
    def targets(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None, class_wise: bool = False
    ) -> Tensor:
        """What a student is to learn about `inputs` (B, 3, H, W): the deviation over predictors (B, 1, H, W).

        Args:
            inputs: as the student sees them, augmented and normalised.
            data_samples: of the B images, for their names.
            class_wise: of every class (B, C, H, W), not only of the one that the mean picks.
        """
        return self.judge(inputs, data_samples, class_wise).maps["std"]

    @torch.no_grad()
    def judge(
        self,
        inputs: Tensor,
        data_samples: list[SegDataSample] | None = None,
        class_wise: bool = False,
        outputs: Collection[str] = ("std",),
    ) -> Judgement:
        """The predictors' mean and their uncertainties `outputs` at the size of the inputs; arguments as `targets`."""
        size = tuple(inputs.shape[2:])
        as_seen = {"ori_shape": size, "img_shape": size, "pad_shape": size}
        metainfo = _metainfo(inputs, data_samples)
        judges = [self.judges(meta) for meta in metainfo]
        together = not any(judges)
        parts = [(slice(None), None)] if together else [(slice(k, k + 1), asked) for k, asked in enumerate(judges)]
        consensus = [self._consensus(outputs) for _ in parts]
        for number, logits in enumerate(self.passes(inputs, [meta | as_seen for meta in metainfo])):
            for of_part, (images, asked) in zip(consensus, parts, strict=True):
                if asked is None or number in asked:
                    of_part.update(logits[images])
        return joined([of_part.result(class_wise) for of_part in consensus])

    def _consensus(self, outputs: Collection[str]) -> Consensus:
        return Consensus(self.ddof, self.decode_head.threshold, outputs)


def _metainfo(inputs: Tensor, data_samples: list[SegDataSample] | None) -> list[Metainfo]:
    """What mmseg asks about each image; it writes into it, so it is a copy."""
    size = tuple(inputs.shape[2:])
    if data_samples is None:
        return [{"ori_shape": size, "img_shape": size, "pad_shape": size} for _ in inputs]
    return [dict(sample.metainfo) for sample in data_samples]


@MODELS.register_module()
class DeepEnsembleSegmentor(TeacherSegmentor):
    """Networks of one kind, each trained from other random weights.

    Args:
        segmentor: config of a member.
        checkpoints: of the members, a list or a pattern such as "work_dirs/member_*/iter_80000.pth".
        resident: keep all members in memory. Otherwise one is there at a time, read from its file for its turn.
        out_of_fold: judge an image that members were trained on only by those which never saw it, as held_out.json
            beside each checkpoint has it; any other image by all.
        kwargs: ddof, class_wise, outputs, data_preprocessor and calibrators, as `TeacherSegmentor`.
    """

    def __init__(
        self,
        segmentor: dict,
        checkpoints: str | Sequence[str],
        resident: bool = False,
        out_of_fold: bool = False,
        **kwargs,
    ) -> None:
        paths = find_checkpoints(checkpoints)
        if len(paths) < 2:
            raise UserError(
                f"an ensemble needs two members to differ, but checkpoints={checkpoints} names {len(paths)}: "
                "train more members, or use MCDropoutSegmentor"
            )
        super().__init__(segmentor, paths, resident=resident, **kwargs)
        self.held_out = read_held_out(paths) if out_of_fold else {}
        print_log(f"Ensemble of {len(paths)}: {', '.join(paths)}", "current")

    def judges(self, image: Metainfo) -> Collection[int] | None:
        """See `TeacherSegmentor`."""
        return self.held_out.get(image_key(image))

    def passes(self, inputs: Tensor, metainfo: list[Metainfo]) -> Iterator[Tensor]:
        """See `TeacherSegmentor`."""
        resident = len(self.members) > 1
        for number, path in enumerate(self.checkpoints):
            member = self.members[number if resident else 0]
            if not resident:
                load_weights(member, read_checkpoint(path))
            yield member.inference(inputs, copy.deepcopy(metainfo))


@MODELS.register_module()
class MCDropoutSegmentor(TeacherSegmentor):
    """One network whose dropout stays on; each pass drops something else.

    Masks depend on the seed, the name of an image's file and the number of the pass, and on nothing else: not on what
    is in the batch, nor on what was drawn before.

    Args:
        segmentor: config of the network.
        checkpoint: its weights.
        num_samples: M, the number of passes.
        rate: probability of dropping; None for what each dropout layer was trained with.
        seed: of the masks.
        kwargs: ddof, class_wise, outputs, data_preprocessor and calibrators, as `TeacherSegmentor`.
    """

    def __init__(
        self,
        segmentor: dict,
        checkpoint: str,
        num_samples: int,
        rate: float | None = None,
        seed: int = 0,
        **kwargs,
    ) -> None:
        if num_samples < 2:
            raise UserError(f"num_samples must be at least 2 for passes to differ, got {num_samples}")
        if rate is not None and not 0 < rate < 1:
            raise UserError(f"rate must lie between 0 and 1, got {rate}")
        super().__init__(segmentor, [checkpoint], **kwargs)
        self.num_samples, self.rate, self.seed = num_samples, rate, seed
        if not self._drops(self.members[0]):
            raise UserError(
                f"nothing is dropped in {type(self.decode_head).__name__}: give the decode head a dropout_ratio above "
                "0, or the teacher a rate"
            )

    def _drops(self, module: nn.Module) -> bool:
        """Whether passes through `module` differ."""
        return any((layer.p if self.rate is None else self.rate) > 0 for layer in dropout_modules(module))

    def passes(self, inputs: Tensor, metainfo: list[Metainfo]) -> Iterator[Tensor]:
        """See `TeacherSegmentor`."""
        (member,) = self.members
        keys = [Path(m["img_path"]).name if m.get("img_path") else number for number, m in enumerate(metainfo)]
        trunk = [member.backbone, *([member.neck] if member.with_neck else [])]
        same_features, windows = not any(map(self._drops, trunk)), []
        for draw in range(self.num_samples):
            seeds = [derive_seed(self.seed, key, draw) for key in keys]
            features = features_from(windows, member) if same_features else nullcontext()
            with features, mc_dropout(member, self.rate, seeds):
                logits = member.inference(inputs, copy.deepcopy(metainfo))
            yield logits


@contextmanager
def features_from(windows: list[Any], segmentor: nn.Module) -> Iterator[None]:
    """Meanwhile the segmentor's features of each window of a pass come from `windows`, or go there the first time."""
    compute, numbers = segmentor.extract_feat, count()

    def extract_feat(inputs: Tensor) -> Any:
        number = next(numbers)
        if number == len(windows):
            windows.append(compute(inputs))
        return windows[number]

    segmentor.extract_feat = extract_feat
    try:
        yield
    finally:
        del segmentor.extract_feat
