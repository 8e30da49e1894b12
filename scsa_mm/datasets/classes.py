"""The classes of the sets that have converters, in the order that fixes their ids in the converted files: 1..N."""

# The toolkit's order, categories 1..10; its other two are no classes.
VISDRONE_IGNORED_REGION, VISDRONE_OTHERS = 0, 11
VISDRONE = (
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
)  # fmt: skip

# The order of the numbers 1..12 in imageclasslist.txt.
EXDARK = (
    'Bicycle',
    'Boat',
    'Bottle',
    'Bus',
    'Car',
    'Cat',
    'Chair',
    'Cup',
    'Dog',
    'Motorbike',
    'People',
    'Table',
)  # fmt: skip

# FLIR ADAS v2 declares about eighty names and labels these; which ones a figure is for is the user's choice.
FLIR_LABELLED = (
    'person',
    'bike',
    'car',
    'motor',
    'bus',
    'train',
    'truck',
    'light',
    'hydrant',
    'sign',
    'dog',
    'skateboard',
    'stroller',
    'scooter',
    'other vehicle',
)  # fmt: skip
# What is most often evaluated; the SCSA paper does not say its choice.
FLIR = FLIR_LABELLED[:3]

# The order of mmdet.datasets.VOCDataset.
VOC = (
    'aeroplane',
    'bicycle',
    'bird',
    'boat',
    'bottle',
    'bus',
    'car',
    'cat',
    'chair',
    'cow',
    'diningtable',
    'dog',
    'horse',
    'motorbike',
    'person',
    'pottedplant',
    'sheep',
    'sofa',
    'train',
    'tvmonitor',
)  # fmt: skip
