"""Training data: objects as fields on grids, and rendered photos of them."""
