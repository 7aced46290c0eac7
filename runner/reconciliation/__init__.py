"""Finance's ledger: reading it and comparing it with the invoices."""
