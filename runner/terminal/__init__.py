"""What a person at a terminal sees: one verb, one module, with its command and its drawing."""
