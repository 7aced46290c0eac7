"""Charges for historical payments: the rule is SQL (migrations/charges); here is only its sample."""
