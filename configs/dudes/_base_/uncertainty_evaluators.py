# What to measure where there is an uncertainty map, and the rival that every network has: the entropy of its softmax.
softmax_evaluator = [
    dict(type="IoUMetric", iou_metrics=["mIoU"]),
    dict(type="SegCalibrationMetric"),
    dict(type="SparsificationMetric", uncertainty="entropy"),
]
uncertainty_evaluator = [
    *softmax_evaluator,
    dict(type="UncertaintyMetric"),
    dict(type="SparsificationMetric"),
]
