-- See 0023. The checks of partitions go with those of their parent.

ALTER TABLE invocations
    DROP CONSTRAINT invocations_cause_kind_check,
    DROP CONSTRAINT invocations_function_check,
    DROP CONSTRAINT invocations_state_check,
    DROP CONSTRAINT invocations_outcome_check;
