"""See it work on a CPU, without a download: how calibrated is a small network on handwritten digits?

Trains a network with dropout on a few of the 8x8 digits that come with scikit-learn, so that it has mistakes to make,
then compares one deterministic pass with Monte-Carlo dropout on the digits it has not seen.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from tqdm import tqdm

from uncertainty_core import CalibrationMetric, CalibrationResult, mc_mean_std, ranking, risk_coverage
from uncertainty_core.plots import reliability_diagram, risk_coverage_plot


def digits(num_train: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (N, 64) in [0, 1] and labels (N,): a training part of `num_train`, and the rest."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(seed))
    images = torch.tensor(data.data, dtype=torch.float32)[order] / 16
    labels = torch.tensor(data.target)[order]
    return images[:num_train], labels[:num_train], images[num_train:], labels[num_train:]


def small_network() -> nn.Module:
    """64 pixels to 10 logits, dropout before each of the last two layers."""
    return nn.Sequential(
        nn.Linear(64, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 10),
    )


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Plain cross-entropy with Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with tqdm(range(epochs), desc="training", unit="epoch") as bar:
        for _ in bar:
            for batch in torch.randperm(len(images)).split(64):
                loss = F.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()


def measure(probabilities: Tensor, labels: Tensor) -> CalibrationResult:
    """Calibration in ten bins."""
    metric = CalibrationMetric(num_classes=10, num_bins=10)
    metric.update(probabilities, labels)
    return metric.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for the table and the pictures")
    parser.add_argument("--train-images", type=int, default=200, help="how many of the 1797 digits to train on")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--mc-samples", type=int, default=50, help="stochastic passes of Monte-Carlo dropout")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # more only get in each other's way in a network this small
    args.output.mkdir(parents=True, exist_ok=True)

    train_images, train_labels, images, labels = digits(args.train_images, args.seed)
    model = small_network()
    train(model, train_images, train_labels, args.epochs)
    with torch.no_grad():
        single = model(images).softmax(1)
    sampled, _ = mc_mean_std(
        model, images, num_samples=args.mc_samples, transform=lambda logits: logits.softmax(1), seed=args.seed
    )

    probabilities = {"one pass": single, f"MC dropout, {args.mc_samples} passes": sampled}
    results = {name: measure(p, labels) for name, p in probabilities.items()}
    for name, result in results.items():
        print(f"\n{name}\n{result}")
        (args.output / f"{name.replace(', ', '_').replace(' ', '_')}.json").write_text(result.to_json())
    title = f"{len(labels)} digits, {args.train_images} trained on"
    reliability_diagram(results, title=title).savefig(args.output / "reliability.png")
    curves = {name: risk_coverage(ranking(1 - p.amax(1), p.argmax(1) != labels)) for name, p in probabilities.items()}
    risk_coverage_plot(curves, title=title).savefig(args.output / "risk_coverage.png")

    print(f"\nLook at {args.output}/reliability.png: a line below the diagonal is overconfident, above it cautious.")
    print(f"        {args.output}/risk_coverage.png: the lower, the better the mistakes are known in advance.")
    print(f"The tables above are in {args.output}/*.json, every bin in full precision.")


if __name__ == "__main__":
    main()
