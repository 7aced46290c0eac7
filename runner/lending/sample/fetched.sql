-- The answers of the processor, recorded: the calls that `runner fetch rotessa` makes with them, step by step.
select * from staging.begin_rotessa_fetch('2025-01-01', '2025-12-31', 90);
select t.* from staging.rotessa_fetch as f, staging.take_rotessa_customers(f.fetch_id, '[
    {"id": 61, "name": "Ida Holm", "customer_type": "Personal", "active": true},
    {"id": 62, "name": "Jon Reyes", "customer_type": "Personal", "active": true},
    {"id": 63, "name": "Kim & Sons", "customer_type": "Business", "active": true}]') as t;
select t.* from staging.rotessa_fetch as f, staging.take_rotessa_schedules(f.fetch_id, 61, '[
    {"id": 701, "amount": "1200.00", "frequency": "Monthly", "process_date": "2025-01-2", "next_process_date": "2026-01-02"},
    {"id": 704, "amount": "640.00", "frequency": "Monthly", "process_date": "2025-06-02", "next_process_date": "2026-01-02"}]') as t;
select t.* from staging.rotessa_fetch as f, staging.take_rotessa_schedules(f.fetch_id, 62, '[
    {"id": 702, "amount": "850.50", "frequency": "Monthly", "process_date": "2025-01-02", "next_process_date": "2026-01-02"}]') as t;
select t.* from staging.rotessa_fetch as f, staging.take_rotessa_schedules(f.fetch_id, 63, '[
    {"id": 703, "amount": "2350.00", "frequency": "Monthly", "process_date": "2025-01-02", "next_process_date": null}]') as t;
-- A year of payments; the last month is Future, with a settlement date all the same.
select t.* from staging.rotessa_fetch as f, staging.take_rotessa_transactions(f.fetch_id, 1, (
    select jsonb_agg(jsonb_build_object(
        'id', s.schedule * 100 + m, 'customer_id', s.customer, 'transaction_schedule_id', s.schedule, 'amount', s.amount,
        'status', case when m = 12 then 'Future' else 'Approved' end,
        'process_date', format('2025-%s-2', m), 'settlement_date', format('2025-%s-4', m)))
    from (values (701, 61, '1200.00', 1), (704, 61, '640.00', 6), (702, 62, '850.50', 1), (703, 63, '2350.00', 1))
        as s (schedule, customer, amount, first), generate_series(s.first, 12) as m)) as t;
select staging.finish_rotessa_fetch(fetch_id) from staging.rotessa_fetch;
