"""Studies: arms x seeds of a recipe, shared stages run once, results as small JSON, tables, plots."""
