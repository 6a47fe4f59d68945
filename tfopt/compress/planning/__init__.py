"""A budget in, the best small model out: chooses width, sparsity and precision by measurement, and builds
it."""

from tfopt.compress.planning.budget import Budget
from tfopt.compress.planning.carrying_out import PlanResult, carry_out, prunings
from tfopt.compress.planning.measuring import Judge, Measurement
from tfopt.compress.planning.planner import MOST_CANDIDATES, Plan, plan

__all__ = [
    "MOST_CANDIDATES",
    "Budget",
    "Judge",
    "Measurement",
    "Plan",
    "PlanResult",
    "carry_out",
    "plan",
    "prunings",
]
