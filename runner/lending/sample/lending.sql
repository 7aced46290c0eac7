-- A lender's own data: borrowers, and mortgages that no payment schedule is linked to.
insert into lending.borrowers (id, name, rotessa_customer_id) values
    ('00000000-0000-4000-8000-000000000061', 'Ida Holm', 61),
    ('00000000-0000-4000-8000-000000000062', 'Jon Reyes', 62),
    ('00000000-0000-4000-8000-000000000063', 'Kim & Sons', 63),
    ('00000000-0000-4000-8000-000000000064', 'Lea Holm', null);
insert into lending.mortgages (id, number, borrower_id, payment_cents, frequency) values
    ('00000000-0000-4000-8000-000000000671', 'M-1001', '00000000-0000-4000-8000-000000000061', 120000, 'Monthly'),
    ('00000000-0000-4000-8000-000000000672', 'M-1002', '00000000-0000-4000-8000-000000000062', 85050, 'Monthly'),
    ('00000000-0000-4000-8000-000000000673', 'M-1003', '00000000-0000-4000-8000-000000000063', 240000, 'Monthly'),
    ('00000000-0000-4000-8000-000000000674', 'M-1004', '00000000-0000-4000-8000-000000000064', 64000, 'Monthly');
