"""The rules of monthly phone billing: values in, decisions out. No I/O, no clock, no framework."""
