{{ reconciled_on_nothing(
    wanted=rows_inserted('charges', 'property.charges'),
    seen={
        'backfill.change_log': 'select count(*) from ' ~ ref('charges_of_last_run'),
        'property.units': ref('stg_property__units'),
        'property.payments': ref('stg_property__payments'),
        'property.charges': ref('stg_property__charges'),
        'property.tenant_balance': ref('stg_property__tenant_balance'),
    },
) }}
