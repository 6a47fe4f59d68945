"""Slimming: whole channels that matter little are removed, and the model becomes smaller and faster."""

from tfopt.compress.slimming.channel_sparsity import ChannelSparsity
from tfopt.compress.slimming.slim import slim

__all__ = ["ChannelSparsity", "slim"]
