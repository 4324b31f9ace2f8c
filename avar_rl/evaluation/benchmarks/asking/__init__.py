"""Questions of benchmarks → prompts → one engine for all → responses, kept as they come."""
