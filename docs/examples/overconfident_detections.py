"""Write what an overconfident detector might leave behind: COCO ground truth and COCO results of two sets of images.

    python docs/examples/overconfident_detections.py

writes val.json, val_detections.json, test.json and test_detections.json into the current folder. A detection with true
log-odds z of being right is given the score sigmoid(2 z), so the temperature that mends it is 2.
"""

import json
import math
import random

SIDE, BOXES = 640, 8  # pixels of an image, detections in it


def sigmoid(log_odds: float) -> float:
    """The probability of these log-odds."""
    return 1 / (1 + math.exp(-log_odds))


def write(split: str, num_images: int) -> None:
    """Write <split>.json and <split>_detections.json."""
    draw = random.Random(split)
    images, annotations, detections = [], [], []
    for image_id in range(1, num_images + 1):
        images.append({"id": image_id, "file_name": f"{image_id}.jpg", "width": SIDE, "height": SIDE})
        for place in range(BOXES):
            log_odds = draw.gauss(0.0, 1.0)
            box = {"image_id": image_id, "category_id": 1, "bbox": [80.0 * place, 80.0 * place, 70.0, 70.0]}
            if draw.random() < sigmoid(log_odds):
                annotations.append({"id": len(annotations) + 1, "area": 4900.0, "iscrowd": 0, **box})
            detections.append({"score": sigmoid(2 * log_odds), **box})
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    for name, content in ((split, truth), (f"{split}_detections", detections)):
        with open(f"{name}.json", "w", encoding="utf-8") as file:
            json.dump(content, file)


if __name__ == "__main__":
    write("val", 250)
    write("test", 250)
