"""Looking at things: headless pictures, notebook viewers, masks and contact sheets."""
