"""SAM 3D Objects as pure tensors: no files, no widgets, no printing."""
