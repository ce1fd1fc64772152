"""The test images on which a student and the baseline differ most, in the groups of DDN figure 6.

Shapes: N images, C classes.
"""

from dataclasses import dataclass
from html import escape

from torch import Tensor

from uncertainty_core.report.markup import hidden, paragraph, text_table

from ..data import ImageSet
from .markup import image

VERY_SURE = 0.99  # the paper's "overconfident and wrong"
PER_GROUP = 8  # images that are shown


@dataclass(frozen=True)
class Group:
    """Test images of one kind: `indices` (n,) into the test set, the most telling first."""

    title: str
    indices: Tensor


def example_groups(baseline: Tensor, student: Tensor, labels: Tensor) -> list[Group]:
    """All groups, empty ones as well; no image is in two of them.

    Args:
        baseline, student: probabilities (N, C).
        labels: true classes (N,).
    """
    sure, picked = baseline.max(1)
    right, student_right = picked == labels, student.argmax(1) == labels
    truth, student_truth = (p.gather(1, labels[:, None])[:, 0] for p in (baseline, student))
    gain = student_truth - truth
    mended = ~right & student_right
    return [
        _group("Both right, and the student less sure", right & student_right & (gain < 0), -gain),
        _group(f"Baseline wrong and more than {VERY_SURE:.0%} sure, student right", mended & (sure > VERY_SURE), gain),
        _group("Near misses of the baseline, student right", mended & (sure <= VERY_SURE), truth - sure),
        _group("Both wrong, but the student gives more to the true class", ~right & ~student_right & (gain > 0), gain),
        _group("Student wrong, baseline right", right & ~student_right, -gain),
    ]


def _group(title: str, members: Tensor, telling: Tensor) -> Group:
    """The images of a mask (N,), those that tell most first."""
    indices = members.nonzero()[:, 0]
    return Group(title, indices[telling[indices].argsort(descending=True, stable=True)])


def examples(test: ImageSet, baseline: Tensor, student: Tensor, name: str) -> str:
    """How often both are right and wrong, and cards of each group of images; `name` is the student's."""
    labels = test.labels.cpu()
    content = _agreement(baseline.argmax(1) == labels, student.argmax(1) == labels, name)
    content += paragraph(_both_wrong(baseline, student, labels))
    content += (
        f'<p class="note">Above each image the probability of its true class: '
        f'<span class="student">{escape(name)} left</span>, <span class="baseline">baseline right</span>. '
        f'Below it the probabilities of all classes in order, <span class="student">{escape(name)} upwards</span> and '
        f'<span class="baseline">baseline downwards</span>; the true class has a grey ground.</p>\n'
    )
    for group in example_groups(baseline, student, labels):
        count = len(group.indices)
        if count:
            cards = "".join(_card(test, i, baseline[i], student[i]) for i in group.indices[:PER_GROUP].tolist())
            share = f"{count} of {len(test)} test images ({count / len(test):.2%})"
            content += f"<h3>{escape(group.title)}</h3>\n{paragraph(share, 'note')}"
            content += f'<div class="cards">\n{cards}</div>\n'
    return content


def _agreement(right: Tensor, student_right: Tensor, name: str) -> str:
    def share(mask: Tensor) -> str:
        return f"{mask.double().mean().item():.2%}"

    rows = [
        ("baseline right", share(right & student_right), share(right & ~student_right)),
        ("baseline wrong", share(~right & student_right), share(~right & ~student_right)),
    ]
    return text_table(["Test images", f"{name} right", f"{name} wrong"], rows, "Agreement of baseline and student")


def _both_wrong(baseline: Tensor, student: Tensor, labels: Tensor) -> str:
    wrong = (baseline.argmax(1) != labels) & (student.argmax(1) != labels)
    if not wrong.any():
        return "No image is misclassified by both."
    better = (student.gather(1, labels[:, None]) > baseline.gather(1, labels[:, None]))[wrong, 0]
    return (
        f"On {better.double().mean().item():.0%} of the images that both get wrong, "
        "the student gives the true class more than the baseline does."
    )


def _card(test: ImageSet, index: int, baseline: Tensor, student: Tensor) -> str:
    label = int(test.labels[index])
    picks = {"student": int(student.argmax()), "baseline": int(baseline.argmax())}
    mistakes = "".join(
        f'<br><span class="{who}">{who}: {escape(test.classes[pick])}</span>'
        for who, pick in picks.items()
        if pick != label
    )
    return (
        '<figure class="card">\n<div class="scores">'
        f'<span class="student">{hidden("student ")}{student[label]:.2f}</span>'
        f'<span class="baseline">{hidden("baseline ")}{baseline[label]:.2f}</span></div>\n'
        f"{image(test.images[index], f'Test image {test.ids[index]}, {test.classes[label]}')}\n"
        f"{histograms(student, baseline, label)}\n"
        f"<figcaption><strong>{escape(test.classes[label])}</strong>{mistakes}</figcaption>\n</figure>\n"
    )


def histograms(student: Tensor, baseline: Tensor, label: int) -> str:
    """Probabilities (C,) of the student upwards and of the baseline downwards, the true class on a grey ground."""
    width = 100 / len(student)
    bars = [f'<rect class="truth" x="{label * width:.2f}" y="0" width="{width:.2f}" height="100"/>']
    for who, probabilities in (("student", student), ("baseline", baseline)):
        for k, p in enumerate(probabilities.tolist()):
            if p >= 0.005:  # half a pixel
                y = 50 - 48 * p if who == "student" else 50
                bars.append(
                    f'<rect class="{who}" x="{(k + 0.1) * width:.2f}" y="{y:.2f}" '
                    f'width="{0.8 * width:.2f}" height="{48 * p:.2f}"/>'
                )
    return (
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="Probabilities of all classes">'
        f'{"".join(bars)}<line class="axis" x1="0" y1="50" x2="100" y2="50"/></svg>'
    )
