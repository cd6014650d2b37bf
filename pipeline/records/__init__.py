"""The files of a run folder: record.json, comparison.json, journal.jsonl."""
