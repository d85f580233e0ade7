"""The when: Celery beat with the schedule, and the worker of its ticks.

`celery -A scheduler beat` and `celery -A scheduler worker -Q ticks`. Two of either are harmless.
"""

from scheduler.app import app

__all__ = ["app"]
