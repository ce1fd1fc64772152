"""Show a folder of images to an exported classifier or segmentor, without torch, the least certain image first.

python docs/examples/onnx_folder.py exported/model.onnx photos 0.3

An image is one for a person to look at where its doubt, 1 less the probability of the predicted class (of a segmentor
the mean over pixels), is 0.3 or more. Of a classifier, `uncertainty_core.threshold_for_risk` finds
the number for a wanted error rate.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
_, height, width, channels = session.get_inputs()[0].shape
doubts = {}
for path in sorted(path for path in Path(sys.argv[2]).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png")):
    picture = ImageOps.exif_transpose(Image.open(path)).convert("L" if channels == 1 else "RGB")
    if isinstance(height, int):  # a file for images of one size
        picture = picture.resize((width, height))
    image = np.asarray(picture).reshape(1, picture.height, picture.width, channels)
    (probabilities,) = session.run(["probabilities"], {"image": image})
    doubts[path.name] = 1 - probabilities.max(1).mean()
for name, doubt in sorted(doubts.items(), key=lambda item: -item[1]):
    print(f"{name}: doubt {doubt:.3f}{', for a person' if doubt >= float(sys.argv[3]) else ''}")
