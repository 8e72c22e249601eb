"""Repair after pruning, with unlabelled samples and no training."""
