"""Training of the tiny model: data, networks, loops. Nothing here ships with the package."""
