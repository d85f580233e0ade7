"""`python -m billing.cli` is `maewol`."""

from billing.cli import main

main()
