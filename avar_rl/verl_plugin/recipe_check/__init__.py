"""The check of a whole recipe before its first stage: configurations, paths, memory and disk. Called by recipes/stages.sh."""
