"""Published detection sets to COCO's json: what is read is checked, and whatever is dropped or mended is counted.

One file a format (``visdrone``, ``exdark``, ``flir``, ``voc``) says what a split holds; ``core`` does the rest.
Boxes in the json are ``[left, top, width, height]`` in pixels of the image as mmcv's loader shows it.
"""
