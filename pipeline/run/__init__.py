"""One chain: what would run, the stages in turn, each result kept."""
