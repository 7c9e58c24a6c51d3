"""The counts of naive Bayes, and what follows from them for a row."""
