"""Two trees to a verdict, without sympy."""
