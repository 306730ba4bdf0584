"""Scenes: the objects of one photo in one upright world.

`reconstruct` makes them, `keep` lets a killed run go on, `realign` finds up and the floor (by `box`
and `up`), `export` writes files.
"""

from sam3d_nb.scene.scene import Failure as Failure
from sam3d_nb.scene.scene import Scene as Scene
