"""What was learned: definitions, versions, aliases, lineage, files of versions."""
