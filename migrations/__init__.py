"""Alembic migrations, forward only. `maewol db upgrade` runs them."""
