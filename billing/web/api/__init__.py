"""The API for the merchant's own system, under `/v1`, and its description."""
