"""The book: SQLAlchemy tables, sessions, one query module per noun, read-only views."""
