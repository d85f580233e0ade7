"""The only code that speaks PortOne.

`client` is the way in. It asks `token` for the bearer token, sends through `exchange` and
`transport`, and reads answers with `answer`, `wire` (charges) and `rows` (look-ups).
"""
