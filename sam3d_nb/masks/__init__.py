"""Masks: which pixels belong to which object.

`segmenter` is the interface of what finds them, by points, boxes, scribbles or words. Behind it are
`sam2` and `sam3` (with `sam` and `sam_weights`), and `embedded`, which needs no weights and is made
of `regions` (a photo in small pieces), `merging` (pieces into trees), `graphcut` (the object in a
box, with color models of `mixture`), `proposals` (nodes that may be objects) and `sharpen`
(outlines to the pixel). `filters` drops what is no object, `find` does so for a whole photo, on the
command line with `options`, in notebooks with `finder`. `picker` is for the mouse.
"""
