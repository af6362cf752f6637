"""What pyfuse3 leaves out: more operations, and callers that are killed.

`extra.c` is a small compiled library between pyfuse3 and libfuse, `library` loads it (before
pyfuse3 is imported) and knows its functions, `requests` ends the waiting of killed callers,
`operations` are the handlers that pyfuse3 does not have.  Without the compiled library a mount
works with what pyfuse3 has.
"""
