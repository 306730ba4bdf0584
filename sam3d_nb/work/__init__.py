"""Long jobs over many photos: what there is to do, what is done, and stopping cleanly."""
