"""The calls of operators: status, fsck, policies, the journal, drains and moves."""
