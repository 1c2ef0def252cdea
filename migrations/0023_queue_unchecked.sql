-- What work passes through is not checked word by word any more (this migration and the next four): Postgres reads each check anew for every
-- statement, which was a fifth of what queued work cost. The words come from types that have no others (docs/decisions/0040).
-- A migration for each table: none locks more than one while other servers work.

ALTER TABLE queue
    DROP CONSTRAINT queue_check,
    DROP CONSTRAINT queue_reset_check,
    DROP CONSTRAINT queue_on_lost_check,
    DROP CONSTRAINT queue_max_concurrency_check,
    DROP CONSTRAINT queue_memory_check;
