"""A budget in, the best small model out: chooses width, sparsity and precision by measurement, and builds
it."""

from tfopt.compress.planning.budget import Budget
from tfopt.compress.planning.carrying_out import PlanResult, carry_out
from tfopt.compress.planning.planner import Plan, plan

__all__ = ["Budget", "Plan", "PlanResult", "carry_out", "plan"]
