"""What the labels of images mean: one class, several labels, or numbers.

A task alone knows the form of its labels, the head and the loss that learn them, what "better" means, how
good outputs are, and how an answer is written. Imports neither Keras nor TensorFlow, so that files can be
evaluated by the interpreter alone.
"""

from tfopt.tasks.classification import Classification
from tfopt.tasks.find import infer_task, make_task
from tfopt.tasks.multi_label import MultiLabel
from tfopt.tasks.regression import Regression
from tfopt.tasks.task import Task

__all__ = ["Classification", "MultiLabel", "Regression", "Task", "infer_task", "make_task"]
