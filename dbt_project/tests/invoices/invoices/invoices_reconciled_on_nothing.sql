{{ reconciled_on_nothing(
    wanted=rows_inserted('invoices', 'billing.invoices'),
    seen={
        'backfill.change_log': rows_captured('invoices', 'billing.invoices'),
        'billing.invoices': ref('stg_billing__invoices'),
        'billing.invoice_lines': ref('stg_billing__invoice_lines'),
        'staging.invoices': ref('stg_landed__invoices'),
    },
) }}
