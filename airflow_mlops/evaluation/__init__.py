"""The champion/challenger gate: which of two models is better, by honest statistics."""
