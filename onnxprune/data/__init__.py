"""Samples and labels that measure a model."""
