"""Masks: which pixels belong to which object.

`segmenter` is the interface of what finds them, by points, boxes, scribbles or words.
"""
