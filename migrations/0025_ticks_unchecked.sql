-- See 0023.

ALTER TABLE cron_ticks DROP CONSTRAINT cron_ticks_fate_check;
