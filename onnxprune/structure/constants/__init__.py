"""Which channels are constants, found by one rule per operator; importing it registers them."""

from . import elementwise, layout, normalization, products

__all__ = ["elementwise", "layout", "normalization", "products"]
