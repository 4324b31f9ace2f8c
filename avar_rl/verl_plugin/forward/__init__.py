"""Around one forward pass of verl's engine: what the trainer asks of it, what the model sees, what comes back."""
