"""Weights: download, safe reading, conversion, verification, placement on devices.

Import from the modules: `store` and `load` for networks, `status` for what is ready. Nothing here
is imported at once, so that the command line answers without torch.
"""
