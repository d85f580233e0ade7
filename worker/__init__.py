"""The doing: the Celery app of the charging workers.

`celery -A worker worker -Q charges`, as many as wanted, and `celery -A worker flower`.
"""

from worker.app import app

__all__ = ["app"]
