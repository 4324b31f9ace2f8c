"""Responses → verdicts by official rules, by the project's grader and by a judge → figures with intervals."""
