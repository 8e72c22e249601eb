"""Losses: chosen from labels and outputs, appended to a graph."""
