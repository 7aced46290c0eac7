-- The next fetch looks back, and finds a payment of March that was Approved and is a Chargeback now.
select * from staging.begin_rotessa_fetch('2025-04-01', '2025-12-31', 90);
select t.* from staging.begin_rotessa_fetch('2025-04-01', '2025-12-31', 90) as f, staging.take_rotessa_transactions(f.fetch_id, 1, '[
    {"id": 70103, "customer_id": 61, "transaction_schedule_id": 701, "amount": "1200.00", "status": "Chargeback",
        "status_reason": "NSF", "process_date": "2025-03-2", "settlement_date": "2025-03-4"}]') as t;
select staging.finish_rotessa_fetch(f.fetch_id) from staging.begin_rotessa_fetch('2025-04-01', '2025-12-31', 90) as f;
