"""From one photo to textured 3D objects, step by step in JupyterLab."""

__version__ = "0.1.0"
