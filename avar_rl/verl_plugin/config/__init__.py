"""A stage's configuration: recipe YAML, the `avar:` block, and the checks before anything starts."""
