"""A budget in, the best small model out: chooses width, sparsity and precision by measurement, and builds
it."""

from tfopt.compress.planning.budget import Budget
from tfopt.compress.planning.carrying_out import PlanResult, carry_out, prunings
from tfopt.compress.planning.fronts import Front, front
from tfopt.compress.planning.measuring import Judge, Measurement
from tfopt.compress.planning.planner import MOST_CANDIDATES, Plan, Planner, UnreachableBudgetError, plan

__all__ = [
    "MOST_CANDIDATES",
    "Budget",
    "Front",
    "Judge",
    "Measurement",
    "Plan",
    "PlanResult",
    "Planner",
    "UnreachableBudgetError",
    "carry_out",
    "front",
    "plan",
    "prunings",
]
