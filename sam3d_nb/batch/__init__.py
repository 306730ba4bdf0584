"""Many photos, every mask of each: resumable, on one machine or the machines of a Ray cluster."""
