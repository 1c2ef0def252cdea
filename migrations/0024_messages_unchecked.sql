-- See 0023.

ALTER TABLE messages
    DROP CONSTRAINT messages_check,
    DROP CONSTRAINT messages_check1,
    DROP CONSTRAINT messages_priority_check;
