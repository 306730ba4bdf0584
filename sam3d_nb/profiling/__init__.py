"""Where the time and the memory go: timers, the published benchmark, its tables and figures.

`probe` reads the clock and the memory of a device, `timer` turns stage events into nested spans,
`measure` runs one object, `benchmark` all objects of all photos, resumably. `results` holds what
came out, with `tables` and `figures`; `published` is what others measured.

Nothing is imported at once, so that the command line answers without torch.
"""
