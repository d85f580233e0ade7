"""What the benchmarks run beside the product: a gateway of fixed delay, and the two rivals."""
