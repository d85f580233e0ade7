"""A checkout page that sells one subscription: a sample to take into one's own shop.

It is on with the setting PORTONE_IMP_CODE. Reading order: `buyer` (what the form asks), `signing`
(an order in the hands of a browser), `pages`, `routes`. docs/checkout.md explains each check.
"""
