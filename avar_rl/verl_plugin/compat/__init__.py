"""Where verl 0.9.1, vLLM or the CPU need something changed or added from outside."""
