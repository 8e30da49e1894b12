# VisDrone2019-DET as tools/dataset_converters/visdrone_to_coco.py leaves it.
visdrone_classes = (
    'pedestrian',
    'people',
    'bicycle',
    'car',
    'van',
    'truck',
    'tricycle',
    'awning-tricycle',
    'bus',
    'motor',
)
# The names in the json files are relative to data_root.
visdrone_data = dict(
    data_root='data/VisDrone2019/',
    metainfo=dict(classes=visdrone_classes),
    data_prefix=dict(img=''),
)
# Two protocols, not comparable with each other: COCO's AP at 100 and at 500 detections, and the data set's own.
visdrone_evaluator = [
    dict(type='scsa_mm.CocoMaxDetsMetric', ann_file='data/VisDrone2019/coco/val.json'),
    dict(type='scsa_mm.VisDroneMetric', ann_dir='data/VisDrone2019/VisDrone2019-DET-val/annotations'),
]
