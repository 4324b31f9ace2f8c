"""Are two answers the same? Trees and words compared under a policy, without sympy."""
