"""Annotations of other programs: YOLO, Pascal VOC, Label Studio, CVAT and Roboflow, written as COCO files."""
