"""Small drawn datasets in the formats of real ones: for the demo and for tests, bound to no download.

:mod:`.scenes` says what is drawn, with every object's mask; a module per format, such as :mod:`.coco`, writes it;
:mod:`.formats` lists them.
"""
