"""What the user gives: the recipe, its prompts, the chosen rows and the tokenizer that measures responses."""
