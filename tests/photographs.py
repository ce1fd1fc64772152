"""Real pictures, which scikit-learn brings along."""

import functools

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

_photographs = functools.cache(lambda: [Image.fromarray(pixels) for pixels in load_sample_images().images])


def photographs(count, size):
    """Up to two of them, resized to `size`: bytes (count, H, W, 3) in RGB."""
    height, width = size
    return torch.stack([torch.from_numpy(np.array(p.resize((width, height)))) for p in _photographs()[:count]])
