drop function rent.lives_there(date, date, text, text);
drop function rent.bill_period(date);
drop function rent.next_period(text, integer);
drop function rent.month_start(text);
