"""Deciding what goes: statistics, thresholds, masks, and which layers they apply to."""
