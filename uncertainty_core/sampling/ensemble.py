"""The joint prediction of several predictors.

Shapes: N samples, C classes, `...` any further dimensions (pixels).
"""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from ..checks import check_distribution
from ..streaming.moments import RunningMoments


class EnsemblePrediction(NamedTuple):
    """mean: mean probabilities (N, C, ...); prediction: the class it picks (N, ...), int64;
    std: deviation over members of that class's probability (N, ...); class_std: of every class (N, C, ...)."""

    mean: Tensor
    prediction: Tensor
    std: Tensor
    class_std: Tensor


def ensemble(probabilities: Iterable[Tensor], ddof: int = 1) -> EnsemblePrediction:
    """Combine the members' class probabilities, which are taken one at a time: a generator keeps memory constant.

    Args:
        probabilities: for each member (N, C, ...); at least ddof + 1 of them.
        ddof: 1 for the sample standard deviation of the DUDES authors' code, 0 for the population's.
    """
    moments = RunningMoments()
    for member in probabilities:
        check_distribution("probabilities", member)
        moments.update(member)
    class_std = moments.std(ddof)
    prediction = moments.mean.argmax(1)
    std = class_std.gather(1, prediction.unsqueeze(1)).squeeze(1)
    return EnsemblePrediction(moments.mean, prediction, std, class_std)
