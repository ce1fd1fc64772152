"""What an exported segmentor sees in an image, without torch: onnxruntime, numpy and pillow are enough.

python docs/examples/onnx_image.py exported/model.onnx street.jpg
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
image = np.asarray(ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB"))[np.newaxis]
names = [output.name for output in session.get_outputs()]
found = dict(zip(names, session.run(names, {"image": image}), strict=True))
for number in np.unique(found["classes"]):
    where = found["classes"] == number
    print(f"{classes[number]}: {where.mean():.1%} of the image, uncertainty {found['uncertainty'][where].mean():.3f}")
