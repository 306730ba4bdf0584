"""SAM 3D Objects as a model: `model` runs the stages, `load` makes it from the weights.

Import from the modules. Nothing here is imported at once, so that the command line answers
without torch.
"""
