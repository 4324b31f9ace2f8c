"""The check of a whole recipe before its first stage, for recipes/stages.sh: configurations, paths, memory and disk."""
