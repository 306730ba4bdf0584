"""Layout refinement: a pose that fits point map and mask better than the one that was found."""

from sam3d_nb.refine.object import about as about
from sam3d_nb.refine.object import refine_layout as refine_layout
from sam3d_nb.refine.pose import Refinement as Refinement
from sam3d_nb.refine.pose import refine_pose as refine_pose
