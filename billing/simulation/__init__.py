"""The deterministic simulation: the real use cases on a real PostgreSQL, in a world of our making.

One process, one simulated clock, one seed → one run, bit for bit. Reading order: `run` (one run),
`world` (what is in it), `processes`, `ports` and `wire` (the real code behind doors that fail),
`nemesis`, `swarm` and `befall` (what goes wrong), `ledger_judge` and `event_judge` (what must hold
all the same), `campaign` and `story` (many runs, and a failure made small). docs/simulation.md.
"""
