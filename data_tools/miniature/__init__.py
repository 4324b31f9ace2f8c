"""The miniature world, model and teacher, on which the whole pipeline runs on a CPU."""
