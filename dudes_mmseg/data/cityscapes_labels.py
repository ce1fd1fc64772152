"""The label ids of Cityscapes, as its annotations have them, and the ids that networks are trained on."""

import numpy as np

ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE = 7, 8, 11, 12, 13, 17
TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, TERRAIN, SKY = 19, 20, 21, 22, 23
PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = 24, 25, 26, 27, 28, 31, 32, 33
# void: in no class, and not evaluated
UNLABELLED, EGO_VEHICLE, OUT_OF_ROI, STATIC, DYNAMIC, GROUND = 0, 1, 3, 4, 5, 6

TRAINED = (
    *(ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, TERRAIN, SKY),
    *(PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE),
)
VOID = 255

_TRAIN_ID = np.full(256, VOID, dtype=np.uint8)
_TRAIN_ID[list(TRAINED)] = np.arange(len(TRAINED))


def train_ids(labels: np.ndarray) -> np.ndarray:
    """Classes 0 to 18, and 255 for void, of label ids (any shape) as bytes."""
    return _TRAIN_ID[labels]


def instance_ids(labels: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """What Cityscapes writes into its instance maps, 16 bit: 1000 * label + number for an object, else the label."""
    counted = labels.astype(np.uint16) * 1000 + (instances - 1)
    return np.where(instances > 0, counted, labels).astype(np.uint16)
