-- A shared flat: who lives there, and the costs that its calculations never named.
insert into rent.tenants (name, start_date) values
('Alma', '2020-01-01'), ('Bo', '2020-01-01'), ('Åsa', '2021-06-01'), ('Dag', '2023-03-16');
insert into rent.rent_config (key, period, value) values
('vattenavgift', '2022-10', 30000), ('va', '2022-10', 30000), ('larm', '2022-10', 10000);
