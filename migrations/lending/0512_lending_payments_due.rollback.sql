drop view backfill.lending_payments_due;
drop view lending.payments_due;
