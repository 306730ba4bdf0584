"""Measuring a reconstruction against the truth: surfaces, volumes, alignment, layout, reports."""
