-- That the log holds no runs is seen to by the rollback of 0011; what the engine was made of may go with it.
drop function backfill.wrong_images(uuid, jsonb, text, text[]);
drop function backfill.erased_packs(uuid, text);
drop function backfill.chain_head();
drop function backfill.link_run(backfill.backfill_log);
drop function backfill.run_packs(uuid);
drop function backfill.pack_bytes(text[], text[]);
drop function backfill.name_in_run(backfill.backfill_log, backfill.tracked);
drop function backfill.add_link(text, uuid, text, jsonb, text);
drop function backfill.log_hash(backfill.backfill_log);
drop function backfill.link_hash(backfill.chain);
drop function backfill.sha256_of(jsonb);
drop table backfill.chain;
