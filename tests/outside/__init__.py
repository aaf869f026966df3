"""What somebody would add to sttd, done as docs/architecture.md says under "Where a change goes"."""
