"""Who makes the calls that rows need: a single process, actors of Ray, or vLLM engines inside Ray."""
