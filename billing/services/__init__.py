"""The use cases: one per file, one public function each. Adapters come in as arguments."""
