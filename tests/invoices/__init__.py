"""Stories of the invoice system share these words."""
