"""The HTTP edge: webhook receiver, enrolment API, checkout sample, operations console, health.

`python -m billing.web` serves it (`maewol web`). Routes only unwrap, call one use case, return.
"""
