# VisDrone2019-DET as tools/dataset_converters/visdrone_to_coco.py leaves it.
visdrone_classes = ('pedestrian', 'people', 'bicycle', 'car', 'van', 'truck', 'tricycle', 'awning-tricycle', 'bus', 'motor')
# The names in the json files are relative to data_root.
visdrone_data = dict(
    data_root='data/VisDrone2019/',
    metainfo=dict(classes=visdrone_classes),
    data_prefix=dict(img=''),
)
visdrone_evaluator = EVAL
