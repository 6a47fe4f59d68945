"""Binary and ternary weights: clones that train them straight through the rounding."""

from tfopt.compress.binarization.binarize import binarize, ternarize
from tfopt.compress.binarization.layers import BinaryConv2D, BinaryDense, TernaryConv2D, TernaryDense

__all__ = ["BinaryConv2D", "BinaryDense", "TernaryConv2D", "TernaryDense", "binarize", "ternarize"]
