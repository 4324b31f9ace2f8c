"""Questions that only sympy decides, asked of worker processes that can be killed."""
