"""How a function is called. Each way is one class with `invoke`; the pool knows no other difference."""
