drop function backfill.untrack(regclass);
drop function backfill.release_table(regclass, boolean);
drop function backfill.track(regclass, text[], text, text, text[], name[], text[]);
drop function backfill.capture_own_table(regclass, text[], text, text, text[], name[], text[]);
drop function backfill.refuse_stranger(regclass);
drop function backfill.capture_table(regclass, text[], text, text, text[], name[], text[]);
drop function backfill.forget_images(backfill.tracked);
drop function backfill.refuse_open_run(text);
